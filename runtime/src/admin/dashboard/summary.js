// The first thing one sees: ready or not, and the five figures of the whole process.

import { byId, html, keyed, setText } from "./dom.js";
import { bytes, duration, plural, quantile, rate, share } from "./format.js";

/** Shows it. */
export function showSummary(view) {
  const { state } = view;
  setText(byId("version"), `${state.version} ${state.command}, up ${duration(Math.floor(state.uptime_seconds))}`);
  showReadiness(state);
  keyed(byId("tiles"), tilesOf(view), (tile) => tile.name, makeTile, updateTile);
  document.title = state.ready ? "cellmesh: ready" : "cellmesh: NOT READY";
}

function showReadiness(state) {
  const banner = byId("readiness");
  banner.className = state.ready ? "banner good" : "banner bad";
  const lines = state.ready
    ? ["✓ Ready: everything that is needed is here."]
    : [`✕ Not ready: ${plural(state.missing.length, "thing is", "things are")} missing.`, ...state.missing];
  keyed(banner, lines.map((text, index) => ({ text, index })), ({ index }) => index, () => html("p"), (line, { text }) => setText(line, text));
}

function tilesOf({ state, total, seconds }) {
  const { whose } = total;
  const span = seconds > 0 ? `last ${Math.round(seconds)} s` : "from the second answer on";
  return [
    { name: "Requests", value: rate(total.rate), note: `${whose}, ${span}` },
    { name: "Errors", value: rate(total.errorRate), note: `5xx or refused, ${whose}`, bad: total.errorRate > 0 },
    { name: "p99", value: quantile(total.p99), note: `p50 ${quantile(total.p50)}` },
    { name: "CPU", value: total.cpuCores === null ? "–" : share(total.cpuCores), note: "of one core" },
    { name: "Memory", value: bytes(state.process?.memory_bytes), note: plural(state.process?.descriptors ?? null, "descriptor") },
  ];
}

function makeTile(tile) {
  return html("div", { class: "tile" }, html("dt", {}, tile.name), html("dd", { class: "value" }), html("dd", { class: "note" }));
}

function updateTile(node, tile) {
  node.classList.toggle("bad", Boolean(tile.bad));
  setText(node.children[1], tile.value);
  setText(node.children[2], tile.note);
}
