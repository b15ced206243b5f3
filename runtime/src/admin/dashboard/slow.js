// What is slow or failing now, and where its time goes: for the one who looks at this at three in the morning.
//
// - Services that fail come first, then the slowest by p99.
// - Times are means of one request: they add up, quantiles do not.

import { byId, html, keyed, setText } from "./dom.js";
import { duration, quantile, rate, share } from "./format.js";

const SHOWN_MAX = 5;
/** Parts that are named; the rest is too small to matter. */
const PARTS_MAX = 3;
const VERBS = { run: "its own code", queue: "waiting for a free instance or thread", idle: "waiting for a clock or a file", call: "calls to " };

/** Shows it. */
export function showSlow(view) {
  // Where no cells are, what clients see of services; where their time goes is known to workers.
  const ranked = rank(view.state.hosts_cells ? view.cells : view.services);
  keyed(byId("slow"), ranked, (cell) => cell.service, makeItem, updateItem);
  const hasParts = view.state.hosts_cells && ranked.length > 0;
  byId("slow-legend").hidden = !hasParts;
  setText(byId("slow-note"), hasParts ? "Mean time of one request over the last seconds, by where it went." : nothing(view, ranked));
}

/** Those that fail, worst first, and then the slowest. */
function rank(cells) {
  const busy = cells.filter((cell) => cell.p99 !== null || cell.errorRate > 0);
  const bySpeed = (a, b) => (b.p99?.seconds ?? 0) - (a.p99?.seconds ?? 0);
  const failing = busy.filter((cell) => cell.errorRate > 0).sort((a, b) => b.errorRate - a.errorRate || bySpeed(a, b));
  const others = busy.filter((cell) => !(cell.errorRate > 0)).sort(bySpeed);
  return [...failing.slice(0, PARTS_MAX), ...others, ...failing.slice(PARTS_MAX)].slice(0, SHOWN_MAX);
}

function nothing({ state, seconds }, ranked) {
  if (!state.hosts_cells && ranked.length > 0) {
    return "As clients see it. Where the time goes is at the admin ports of the workers of a service.";
  }
  return seconds > 0 ? "Nothing was asked in the last seconds." : "";
}

function makeItem() {
  const heading = html("p", { class: "slow-name" }, html("strong"), html("span", { class: "number" }), html("span", { class: "bad-text" }));
  return html("li", {}, heading, html("div", { class: "parts", "aria-hidden": "true" }), html("p", { class: "why" }));
}

function updateItem(item, cell) {
  const [name, p99, failed] = item.children[0].children;
  setText(name, cell.service);
  setText(p99, `p99 ${quantile(cell.p99)}`);
  setText(failed, cell.errorRate > 0 ? `✕ ${share(cell.errorShare)} fail` : "");
  showParts(item.children[1], cell);
  setText(item.children[2], why(cell));
}

function showParts(bar, cell) {
  const parts = cell.parts ?? [];
  const all = parts.reduce((sum, part) => sum + part.seconds, 0);
  const key = (part) => `${part.kind} ${part.callee ?? ""}`;
  bar.hidden = parts.length === 0;
  keyed(bar, parts, key, (part) => html("span", { class: `part ${part.kind}` }), (node, part) => {
    node.style.width = `${(100 * part.seconds) / all}%`;
  });
}

function why(cell) {
  const parts = (cell.parts ?? []).slice(0, PARTS_MAX).map((part) => `${duration(part.seconds)} ${VERBS[part.kind]}${part.callee ?? ""}`);
  const time = cell.mean === null ? [] : [`mean ${duration(cell.mean)}${parts.length > 0 ? ": " : ""}${parts.join(", ")}`];
  const errors = cell.errorRate > 0 ? [`${rate(cell.errorRate)} answered with an error`] : [];
  const faults = (cell.newFaults ?? []).map(([kind, number]) => `${number} × ${kind}`);
  return [...time, ...errors, ...faults].join("; ");
}
