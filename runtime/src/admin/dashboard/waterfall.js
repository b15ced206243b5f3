// The steps of a request in time: what ran when, what it waited for, and what made the whole take as long as it did.
//
// - A call's own steps stand below it, one step further in.
// - What waits and what runs differ by pattern as well as by colour; failed and critical are words too.
// - Not here: the order in which steps had to run (plan.js).

import { html } from "./dom.js";
import { duration, plural } from "./format.js";
import { isFailed, linkTo } from "./requests.js";

const ROWS_MAX = 300;
/** As deep as callees are nested; deeper ones are not indented further. */
const DEPTH_MAX = 8;
const TICKS = 4;
const KINDS = { handler: "handler", internal: "step", prepared: "prepared", builder: "builder", egress: "call" };

/** All spans of a record and of its callees, in the order of their beginning, callees below their call. */
export function rowsOf(record) {
  const rows = [];
  append(rows, record, { offset: 0, depth: 0, critical: true });
  return rows;
}

function append(rows, record, at) {
  const callees = new Map(record.callees.map((callee) => [callee.request.id, callee]));
  const critical = new Set(record.critical_path);
  const spans = [...record.spans].sort((a, b) => a.start_seconds - b.start_seconds);
  for (const span of spans) {
    // Nothing of a plan can begin before the handler has returned it.
    const isCritical = at.critical && (span.kind === "handler" || critical.has(span.step));
    const start = at.offset + span.start_seconds;
    const callee = callees.get(span.callee);
    const inner = callee?.request.duration_seconds ?? 0;
    rows.push({ ...span, service: record.request.service, start, depth: at.depth, isCritical, own: Math.max(span.duration_seconds - inner, 0) });
    if (callee !== undefined && at.depth < DEPTH_MAX) {
      append(rows, callee, { offset: startOf(callee, record, at, span), depth: at.depth + 1, critical: isCritical });
    }
  }
}

/** By the clocks of both; a clock that lies puts no callee outside of its call. */
function startOf(callee, record, at, span) {
  const first = at.offset + span.start_seconds;
  const last = Math.max(first + span.duration_seconds - callee.request.duration_seconds, first);
  const said = at.offset + (callee.request.started_ms - record.request.started_ms) / 1000;
  return Math.min(Math.max(said, first), last);
}

/** Words for what most of the time went to: the step on the critical path that itself took longest. */
export function verdict(record, rows) {
  const slowest = rows.filter((row) => row.isCritical).reduce((a, b) => (a === null || b.own > a.own ? b : a), null);
  if (slowest === null) {
    return null;
  }
  const whole = record.request.duration_seconds;
  const waits = slowest.queue_seconds > slowest.own / 2 ? `, ${duration(slowest.queue_seconds)} of it waiting for a free instance or thread` : "";
  const part = whole > 0 ? ` (${Math.round((100 * Math.min(slowest.own, whole)) / whole)} %)` : "";
  return `Most of the time: ${nameOf(slowest)}, ${duration(slowest.own)} of ${duration(whole)}${part}${waits}.`;
}

/** Words for what failed first: of the failed steps the innermost, the others only pass it on. */
export function cause(rows) {
  const first = rows.filter(isFailed).reduce((a, b) => (a === null || b.depth > a.depth ? b : a), null);
  return first === null ? null : `Failed in ${nameOf(first)}: ${failureOf(first)}.`;
}

function failureOf(row) {
  return row.error ?? `status ${row.status}`;
}

function nameOf(row) {
  const step = row.step === null ? KINDS[row.kind] : `${KINDS[row.kind] ?? row.kind} ${row.step}`;
  return `${row.service}: ${step}${row.target ? ` to ${row.target}` : ""}`;
}

/** The whole waterfall. */
export function waterfall(record, rows) {
  const length = Math.max(record.request.duration_seconds, ...rows.map((row) => row.start + row.duration_seconds), Number.MIN_VALUE);
  const list = html("ol", { class: "waterfall", role: "list" }, ...rows.slice(0, ROWS_MAX).map((row) => item(row, length)));
  const leftOut = Math.max(rows.length - ROWS_MAX, 0) + record.spans_left_out;
  return html("div", {}, legend(), axis(length), list, leftOut > 0 ? html("p", { class: "muted" }, `${plural(leftOut, "more step")} are left out.`) : null);
}

function legend() {
  const entry = (kind, text) => html("span", {}, html("i", { class: `key ${kind}` }), text);
  return html(
    "p",
    { class: "legend", "aria-hidden": "true" },
    entry("queue", "waits for an instance or a thread"),
    entry("run", "runs"),
    entry("idle", "waits for a clock or a file"),
    entry("call", "calls a service"),
    entry("critical", "◆ on the critical path"),
  );
}

function axis(length) {
  const ticks = Array.from({ length: TICKS + 1 }, (_, index) => {
    const tick = html("span", {}, duration((length * index) / TICKS));
    tick.style.left = `${(100 * index) / TICKS}%`;
    return tick;
  });
  return html("div", { class: "axis", "aria-hidden": "true" }, html("div", {}, ...ticks));
}

function item(row, length) {
  const failed = isFailed(row);
  const name = html("span", { class: "step-name" }, nameOf(row));
  name.style.paddingInlineStart = `${0.9 * row.depth}em`;
  const marks = [row.isCritical ? html("span", { class: "mark" }, "◆ critical") : null, failed ? html("span", { class: "bad-text" }, `✕ failed: ${failureOf(row)}`) : null];
  const open = row.callee ? html("a", { href: linkTo(row.callee) }, "open") : null;
  const classes = ["step", row.isCritical && "critical", failed && "bad"].filter(Boolean).join(" ");
  return html(
    "li",
    { class: classes, "data-step": row.step ?? "" },
    html("div", { class: "step-head" }, name, " ", html("span", { class: "number" }, duration(row.duration_seconds)), " ", ...marks, " ", open),
    html("div", { class: "track", "aria-hidden": "true" }, ...bars(row, length)),
    html("div", { class: "step-times muted" }, times(row)),
  );
}

function times(row) {
  const parts = [`from ${duration(row.start)} on`];
  if (row.queue_seconds !== null) {
    parts.push(`waited ${duration(row.queue_seconds)}`);
  }
  if (row.run_seconds !== null) {
    parts.push(`ran ${duration(row.run_seconds)}`);
  }
  if (row.status !== null) {
    parts.push(`status ${row.status}`);
  }
  return parts.join(", ");
}

/** Queue, then run, then what is neither, each in one, whenever it was; a call is one bar. */
function bars(row, length) {
  const bar = (kind, start, seconds) => {
    const node = html("span", { class: `bar ${kind}` });
    node.style.left = `${(100 * start) / length}%`;
    node.style.width = `${(100 * seconds) / length}%`;
    return node;
  };
  if (row.kind === "egress") {
    return [bar("call", row.start, row.duration_seconds)];
  }
  const queue = row.queue_seconds ?? 0;
  const run = row.run_seconds ?? Math.max(row.duration_seconds - queue, 0);
  const idle = Math.max(row.duration_seconds - queue - run, 0);
  const parts = [bar("queue", row.start, queue), bar("run", row.start + queue, run), bar("idle", row.start + queue + run, idle)];
  return parts.filter((_, index) => [queue, run, idle][index] > 0);
}
