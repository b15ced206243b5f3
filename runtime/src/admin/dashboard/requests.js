// The list of requests that are kept, and which of them are shown.
//
// - Each is a link to `#request=ID`: it can be opened in another tab, sent to somebody, and gone back from.
// - Not here: what is shown of one of them (request.js).

import { byId, html, keyed, setText } from "./dom.js";
import { clock, count, duration, plural, shortened } from "./format.js";

const ROWS_MAX = 100;
const TARGET_LETTERS = 60;
const WHY = { sampled: "sample", error: "error", slow: "slow" };

/** The address of a request on this page. */
export function linkTo(id) {
  return `#request=${encodeURIComponent(id)}`;
}

/** Which request the address of this page names; null if none. */
export function linked() {
  const named = /^#request=(.+)$/.exec(location.hash);
  try {
    return named && decodeURIComponent(named[1]);
  } catch {
    return named[1];
  }
}

/** Whether it failed: an error, or a status of the 500s. */
export function isFailed({ error, status }) {
  return Boolean(error) || status >= 500;
}

/** The list and its filter. */
export class Requests {
  #answer = null;
  #services = [];
  #form = byId("filter");

  constructor() {
    this.#form.addEventListener("input", () => this.#show());
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    addEventListener("hashchange", () => this.#show());
  }

  /** Shows the requests of an answer; `services` are those one can choose from. */
  show(answer, services) {
    this.#answer = answer;
    this.#services = services;
    this.#show();
  }

  /** Shows the requests of one service. */
  choose(service) {
    this.#offer([service]);
    this.#form.elements.service.value = service;
    this.#show();
    byId("requests-heading").focus();
  }

  #show() {
    if (this.#answer === null) {
      return;
    }
    const all = this.#answer.requests;
    this.#offer([...this.#services, ...all.map((request) => request.service)]);
    const found = all.filter((request) => this.#wanted(request));
    if (this.#form.elements.order.value === "slowest") {
      found.sort((a, b) => b.duration_seconds - a.duration_seconds);
    }
    keyed(byId("request-list"), found.slice(0, ROWS_MAX), (request) => request.id, makeRow, updateRow);
    setText(byId("requests-note"), note(this.#answer, found.length));
  }

  #wanted(request) {
    const { kind, service, find, clients } = this.#form.elements;
    const isKind = { all: true, slow: request.duration_seconds >= this.#answer.slow_seconds, errors: isFailed(request) };
    return (
      isKind[kind.value] &&
      (service.value === "" || service.value === request.service) &&
      (!clients.checked || request.caller === null) &&
      mentions(request, find.value.trim().toLowerCase())
    );
  }

  /** Services that can be chosen: the chosen one stays among them. */
  #offer(services) {
    const select = this.#form.elements.service;
    const names = [...new Set([...services, select.value])].filter((name) => name !== "").sort();
    keyed(select, ["", ...names], (name) => name, (name) => html("option", { value: name }, name || "any"), () => {});
  }
}

function mentions(request, text) {
  const { id, trace_id, request_id, method, target, error, status } = request;
  return [id, trace_id, request_id, `${method} ${target}`, error, status].some((part) => String(part ?? "").toLowerCase().includes(text));
}

function note({ requests, kept_max, slow_seconds }, found) {
  if (requests.length === 0) {
    return "No requests yet: send one to the serving port. Kept are errors, slow ones, and samples of the rest.";
  }
  const shown = found > ROWS_MAX ? `${plural(found, "request")}, of which ${ROWS_MAX} are shown` : plural(found, "request");
  return `${shown}. ${count(requests.length)} are kept of at most ${count(kept_max)}: errors, those from ${duration(slow_seconds)} on, and samples of the rest.`;
}

function makeRow(request) {
  const target = `${request.method} ${request.target}`;
  const link = html("a", { href: linkTo(request.id), title: target.length > TARGET_LETTERS ? target : null }, shortened(target, TARGET_LETTERS));
  const failed = isFailed(request);
  return html(
    "tr",
    { class: failed ? "bad" : null },
    html("th", { scope: "row" }, link),
    html("td", { title: request.service }, request.service),
    html("td", {}, `${failed ? "✕ " : ""}${request.status ?? "none"}`),
    html("td", { class: "number" }, duration(request.duration_seconds)),
    html("td", {}, clock(request.started_ms)),
    html("td", { class: "number" }, count(request.steps)),
    html("td", {}, WHY[request.why] ?? request.why),
  );
}

function updateRow(row, request) {
  const chosen = request.id === linked();
  row.classList.toggle("chosen", chosen);
  const link = row.querySelector("a");
  if (chosen) {
    link.setAttribute("aria-current", "true");
  } else {
    link.removeAttribute("aria-current");
  }
}
