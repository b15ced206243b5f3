// The picture of who calls whom, and the same as a table.
//
// - Callers left, callees right; on a narrow screen from top to bottom.
// - A call that fails is red, dashed, and says so. Width is the rate.
// - Bounded: the busiest services and calls are drawn, and how many are left out is said.
// - Not here: where everything is (layout.js), figures (samples.js).

import { byId, drawing, html, keyed, setText, svg } from "./dom.js";
import { count, plural, quantile, rate, share, shortenedInside } from "./format.js";
import { Layout } from "./layout.js";
import { LABEL, NODE } from "./places.js";

const NODES_MAX = 40;
/** Where forty call each other the picture would take a quarter of each second, and nobody could read it. */
const CALLS_MAX = 150;
/** Beyond it the labels would cover the picture: only calls that fail and the busiest have one. */
const LABELS_MAX = 24;
const ROWS_MAX = 200;
const CLIENTS = "clients";
/** Smaller than this nobody reads it. */
const SHRUNK_MIN = 0.7;
const NARROW = 600;
const NAME_LETTERS = 15;
/** Of a label: the widest that a letter is, on the whole, and what is around its texts. */
const LABEL_LETTER = 6.6;
const LABEL_MARGIN = 3;

/** That of the picture; there is one. */
export const layout = new Layout();

/** Shows both. */
export function showTopology(view, onService) {
  const calls = view.edges.map((edge) => ({ ...edge, key: JSON.stringify([edge.from, edge.to]) }));
  calls.sort((a, b) => (b.rate ?? 0) - (a.rate ?? 0) || b.total - a.total || (a.key < b.key ? -1 : 1));
  const nodes = nodesOf(view, calls);
  const shown = new Set(nodes.slice(0, NODES_MAX).map((node) => node.id));
  const between = calls.filter((call) => shown.has(idOf(call.from)) && shown.has(call.to));
  const drawn = between.slice(0, CALLS_MAX);
  setText(byId("topology-note"), note(nodes.length - shown.size, between.length - drawn.length, calls, view));
  const place = byId("topology");
  place.hidden = calls.length === 0;
  if (calls.length > 0) {
    place.replaceChildren(picture(nodes.slice(0, NODES_MAX), drawn, place.clientWidth, onService));
  }
  showTable(calls);
}

function note(nodesLeft, callsLeft, calls, view) {
  if (calls.length === 0) {
    const service = view.state.cells[0]?.service ?? "SERVICE";
    return `No requests yet: send one to the serving port, for example  curl -H 'host: ${service}' http://ADDRESS/  (cellmesh prints the address in its first line).`;
  }
  const busiest = (drawn, what, left) => (left > 0 ? ` The ${drawn} busiest ${what} are drawn, ${left} are left out; the table has more.` : "");
  const rest = busiest(NODES_MAX, "services", nodesLeft) + busiest(CALLS_MAX, "calls", callsLeft);
  return `Calls per second and p99 over the last ${Math.max(Math.round(view.seconds), 1)} s; thick is busy, dashed red is failing.${rest}`;
}

// What is in the picture.

/** A service may itself have any name: clients are told by having none. */
function idOf(name) {
  return name === null ? "" : name;
}

/** The busiest first. */
function nodesOf(view, calls) {
  const cells = new Map(view.cells.map((cell) => [cell.service, cell]));
  const busy = new Map();
  for (const call of calls) {
    for (const id of [idOf(call.from), call.to]) {
      const sum = busy.get(id) ?? { rate: 0, total: 0 };
      busy.set(id, { rate: sum.rate + (call.rate ?? 0), total: sum.total + call.total });
    }
  }
  const nodes = [...busy].map(([id, load]) => ({ id, cell: cells.get(id) ?? null, load }));
  return nodes.sort((a, b) => b.load.rate - a.load.rate || b.load.total - a.load.total);
}

function picture(nodes, calls, widthMax, onService) {
  const narrow = widthMax < NARROW;
  const names = nodes.map((node) => node.id).sort();
  const labels = new Set(labelled(calls));
  const inOrder = [...calls].sort((a, b) => (a.key < b.key ? -1 : 1));
  const ends = inOrder.map((call) => ({ from: idOf(call.from), to: call.to }));
  const isLabelled = inOrder.map((call) => labels.has(call));
  // Where not all can have a label the lines of one callee may be one.
  const { corners, paths, width, height } = layout.of(names, ends, isLabelled, calls.length > LABELS_MAX, narrow);
  const title = `${plural(calls.length, "call path")} between ${plural(nodes.length, "service")}; the table below says the same.`;
  const root = drawing("topology", [0, 0, width, height], SHRUNK_MIN, title);
  root.append(
    svg("defs", {}, arrow("arrow"), arrow("arrow-bad")),
    ...inOrder.map((call, index) => drawCall(call, paths[index].d)),
    ...nodes.map((node) => drawNode(node, corners.get(node.id), onService)),
    ...inOrder.flatMap((call, index) => (paths[index].label === null ? [] : [drawLabel(call, paths[index].label)])),
  );
  return root;
}

/** All calls if they are few, else those that fail and the busiest. */
function labelled(calls) {
  const failing = calls.filter((call) => call.errorRate > 0);
  return calls.length <= LABELS_MAX ? calls : [...failing, ...calls].slice(0, LABELS_MAX);
}

// Drawing.

function arrow(id) {
  const head = svg("path", { d: "M0 0 L8 4 L0 8 z" });
  return svg("marker", { id, class: id, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto" }, head);
}

function drawCall(call, d) {
  const bad = call.errorRate > 0;
  const width = 1.5 + Math.min(2 * Math.log10(1 + (call.rate ?? 0)), 6.5);
  const attributes = { class: bad ? "call bad" : call.rate > 0 ? "call" : "call idle", "data-from": idOf(call.from), "data-to": call.to };
  return svg("g", attributes, svg("path", { d, "stroke-width": width, "marker-end": `url(#${bad ? "arrow-bad" : "arrow"})` }));
}

function drawLabel(call, { x, y }) {
  const first = `${rate(call.rate)} · ${quantile(call.p99)}`;
  const texts = call.errorRate > 0 ? [first, `✕ ${share(call.errorShare)} fail`] : [first];
  const width = Math.min(Math.max(...texts.map((text) => text.length)) * LABEL_LETTER + 2 * LABEL_MARGIN, LABEL.width);
  // Nobody reads what a line goes through.
  const back = svg("rect", { x: x - width / 2, y: y - 11, width, height: 1 + 14 * texts.length });
  const lines = texts.map((text, index) =>
    svg("text", { x, y: y + 13 * index, "text-anchor": "middle", class: index > 0 ? "bad-text" : null }, text));
  return svg("g", { class: "label" }, back, ...lines);
}

function drawNode({ id, cell, load }, { x, y }, onService) {
  const isClients = id === "";
  const bad = cell !== null && cell.errorRate > 0;
  const name = isClients ? CLIENTS : id;
  const second = cell === null ? rate(load.rate) : `${rate(cell.rate)} · ${quantile(cell.p99)}`;
  const classes = ["node", isClients && "clients", bad && "bad", cell !== null && "asked"].filter(Boolean).join(" ");
  const node = svg(
    "g",
    { class: classes, transform: `translate(${x} ${y})` },
    svg("title", {}, bad ? `${name}: ${share(cell.errorShare)} of its answers are errors` : name),
    svg("rect", { width: NODE.width, height: NODE.height, rx: isClients ? NODE.height / 2 : 6 }),
    svg("text", { x: NODE.width / 2, y: 19, "text-anchor": "middle", class: "name" }, `${bad ? "✕ " : ""}${shortenedInside(name, NAME_LETTERS)}`),
    svg("text", { x: NODE.width / 2, y: 35, "text-anchor": "middle" }, second),
  );
  if (cell !== null) {
    node.addEventListener("click", () => onService(id));
  }
  return node;
}

// The table.

function showTable(calls) {
  keyed(byId("edges"), calls.slice(0, ROWS_MAX), (call) => call.key, makeRow, updateRow);
  setText(byId("edges-note"), calls.length > ROWS_MAX ? `${calls.length - ROWS_MAX} more with fewer calls are left out.` : "");
}

function makeRow(call) {
  const number = () => html("td", { class: "number" });
  return html("tr", {}, html("td", {}, call.from ?? CLIENTS), html("td", {}, call.to), number(), number(), number(), number(), number());
}

function updateRow(row, call) {
  row.classList.toggle("bad", call.errorRate > 0);
  const texts = [rate(call.rate), quantile(call.p50), quantile(call.p99), share(call.errorShare), count(call.total)];
  texts.forEach((text, index) => setText(row.children[index + 2], text));
}
