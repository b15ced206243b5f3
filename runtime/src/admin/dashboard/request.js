// One request: what it was, what most of its time went to, its steps in time, its plan.

import { byId, html, setText } from "./dom.js";
import { clock, duration } from "./format.js";
import { planOf } from "./plan.js";
import { ask } from "./poll.js";
import { isFailed, linked, linkTo } from "./requests.js";
import { cause, rowsOf, verdict, waterfall } from "./waterfall.js";

/** Shows the request that the address names, now and whenever the address changes. */
export function followAddress() {
  addEventListener("hashchange", () => showLinked(true));
  showLinked(false);
}

async function showLinked(chosen) {
  const id = linked();
  if (id === null) {
    return;
  }
  const shown = await recordOf(id);
  // Another one may have been chosen meanwhile.
  if (linked() !== id) {
    return;
  }
  show(shown);
  if (chosen) {
    byId("request-heading").focus();
  }
}

async function recordOf(id) {
  try {
    return { id, record: await ask(`/v1/requests/${encodeURIComponent(id)}`) };
  } catch (error) {
    return { id, error };
  }
}

function show({ id, record, error }) {
  const body = byId("request-body");
  if (record === undefined) {
    setText(byId("request-heading"), `Request ${id} cannot be shown`);
    body.replaceChildren(...missing(error));
    return;
  }
  const { request } = record;
  const rows = rowsOf(record);
  setText(byId("request-heading"), `${request.method} ${request.target}`);
  const parts = [
    outcome(request),
    isFailed(request) ? sentence(cause(rows)) : null,
    sentence(verdict(record, rows)),
    facts(request),
    html("h4", {}, "Step by step"),
    sums(request),
    waterfall(record, rows),
    html("h4", {}, "Its plan"),
    planOf(record, byId("request").clientWidth),
  ];
  body.replaceChildren(...parts.filter((part) => part !== null));
}

/** What `cellmesh replay` runs again. */
function recording({ id }) {
  return html("a", { href: `/v1/requests/${encodeURIComponent(id)}/recording`, download: `request-${id}.json` }, "download it");
}

function sentence(text) {
  return text === null ? null : html("p", { class: "verdict" }, text);
}

function missing(error) {
  const hint = error.cause === 404
    ? "The port keeps the newest requests only, and none of before a restart. Choose another one in the list."
    : "Choose it again when the port answers.";
  return [html("p", { class: "bad-text" }, error.message), html("p", { class: "muted" }, hint)];
}

function outcome(request) {
  const failed = isFailed(request);
  const said = request.error ? `: ${request.error}` : "";
  const text = `${failed ? "✕ failed" : "✓ answered"} with ${request.status ?? "no status"} after ${duration(request.duration_seconds)}${said}`;
  return html("p", { class: failed ? "bad-text outcome" : "outcome" }, text);
}

/** What all its steps did, together: beside each other they may come to more than it took. */
function sums({ queue_seconds, run_seconds, egress_seconds }) {
  const called = egress_seconds > 0 ? ` For ${duration(egress_seconds)} it waited for other services, or worked beside their calls.` : "";
  return html("p", { class: "muted sums" }, `All its functions together waited ${duration(queue_seconds)} for an instance or a thread, and ran ${duration(run_seconds)}.${called}`);
}

function facts(request) {
  const caller = request.caller === null ? "a client" : html("a", { href: linkTo(request.caller) }, `request ${request.caller}`);
  const all = [
    ["Service", request.service],
    ["Asked by", caller],
    ["Began", clock(request.started_ms)],
    ["Steps", String(request.steps)],
    ["Id", request.id],
    ["Trace", request.trace_id],
    ["Request id", request.request_id],
    ["Recorded", request.has_recording ? recording(request) : null],
  ];
  const known = all.filter(([, value]) => value !== null && value !== undefined);
  return html("dl", { class: "facts" }, ...known.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value))));
}
