// The plan of a request: steps that run one after the other, and steps that run at the same time.
//
// ```text
// order: children in a row, arrows between them      pipe: children side by side in a dashed box
// ```
//
// - Where a row is too wide it goes down instead.
// - Bounded in depth and in boxes; what is left out is said. A plan that names a step twice does not hang it.
// - The same as a list, for who does not see the picture.
// - Not here: when it ran (waterfall.js).

import { drawing, html, svg } from "./dom.js";
import { duration, plural, shortened } from "./format.js";
import { isFailed } from "./requests.js";

const BOXES_MAX = 200;
const DEPTH_MAX = 24;
const BOX = { width: 136, height: 58 };
const GAP = 26;
const PAD = 10;
const HEAD = 18;
/** Smaller than this nobody reads it. */
const SHRUNK_MIN = 0.75;
const LINE_LETTERS = 18;
const WORDS = { order: "one after the other", pipe: "at the same time" };

/** The picture and the list. */
export function planOf(record, widthMax) {
  const { plan } = record;
  if (plan === null) {
    return html("p", { class: "muted" }, "No plan: the handler answered by itself.");
  }
  const tree = treeOf(record);
  const leftOut = plan.steps_left_out + tree.leftOut;
  const list = html("ul", { class: "plan-list" }, listItem(tree.root));
  return html(
    "div",
    {},
    html("div", { class: "scrolls", role: "region", "aria-label": "Picture of the plan", tabindex: "0" }, picture(tree.root, widthMax)),
    leftOut > 0 ? html("p", { class: "muted" }, `${plural(leftOut, "more step")} are left out.`) : null,
    html("details", {}, html("summary", {}, "The plan as a list"), list),
  );
}

// What is in it.

/** The steps from the root on, with how they went. */
function treeOf(record) {
  const steps = new Map(record.plan.steps.map((step) => [step.id, step]));
  const critical = new Set(record.critical_path);
  const seen = new Set();
  let leftOut = 0;
  const grow = (id, depth) => {
    const step = steps.get(id);
    if (step === undefined || seen.has(id) || seen.size >= BOXES_MAX || depth > DEPTH_MAX) {
      leftOut += 1;
      return null;
    }
    seen.add(id);
    const spans = record.spans.filter((span) => span.step === id);
    const children = step.children.map((child) => grow(child, depth + 1)).filter((child) => child !== null);
    return node(step, spans, children, critical.has(id), record.plan.respond_with === id);
  };
  const root = grow(record.plan.root, 0);
  return { root, leftOut: record.plan.steps_left_out > 0 ? 0 : leftOut };
}

function node(step, spans, children, named, responds) {
  const isGroup = step.kind === "order" || step.kind === "pipe";
  const failed = spans.find(isFailed);
  return {
    ...step,
    children,
    isGroup,
    responds,
    // A group is on the path when something in it is.
    isCritical: named || children.some((child) => child.isCritical),
    isFailed: failed !== undefined || (isGroup && children.some((child) => child.isFailed && !child.tolerant)),
    error: failed?.error ?? (failed ? `status ${failed.status}` : null),
    ran: spans.length > 0,
    // A prepared step whose function was run all the same.
    wasCalled: spans.some((span) => span.kind === "internal"),
    seconds: spans.reduce((sum, span) => sum + span.duration_seconds, 0),
  };
}

/** What a step does, in a few words. */
function workOf(step) {
  if (step.kind === "egress") {
    const hosts = [...new Set((step.requests ?? []).map((request) => hostOf(request.url)))];
    return hosts.length > 0 ? `calls ${hosts.join(", ")}` : "calls";
  }
  const isStep = step.kind === "internal" || (step.kind === "prepared" && step.wasCalled);
  return isStep ? "step" : step.kind;
}

function hostOf(url) {
  return /^[a-z]+:\/\/([^/?#]*)/.exec(url)?.[1] ?? url;
}

// Sizes: each box knows its own, from the inside out.

function measure(step, narrow) {
  if (!step.isGroup) {
    return { step, width: BOX.width, height: BOX.height, inner: [] };
  }
  const inner = step.children.map((child) => measure(child, narrow));
  const inRow = (step.kind === "order") !== narrow;
  const gap = step.kind === "order" ? GAP : PAD;
  const sum = (side) => inner.reduce((all, box) => all + box[side], 0) + gap * Math.max(inner.length - 1, 0);
  const most = (side) => Math.max(0, ...inner.map((box) => box[side]));
  const [width, height] = inRow ? [sum("width"), most("height")] : [most("width"), sum("height")];
  return { step, inner, inRow, gap, width: Math.max(width + 2 * PAD, BOX.width), height: height + 2 * PAD + HEAD };
}

// Drawing: from the outside in.

function picture(tree, widthMax) {
  const [wide, narrow] = [measure(tree, false), measure(tree, true)];
  const box = wide.width <= widthMax || wide.width <= narrow.width ? wide : narrow;
  const root = drawing("plan", [-2, -2, box.width + 4, box.height + 4], SHRUNK_MIN, "Steps of the plan; the list below says the same.");
  const head = svg("marker", { id: "then", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto" }, svg("path", { d: "M0 0 L8 4 L0 8 z" }));
  root.append(svg("defs", {}, head));
  draw(root, box, 0, 0);
  return root;
}

function draw(root, box, x, y) {
  if (!box.step.isGroup) {
    root.append(leaf(box.step, x, y));
    return;
  }
  root.append(group(box, x, y));
  let along = (box.inRow ? x : y + HEAD) + PAD;
  box.inner.forEach((child, index) => {
    const [left, top] = box.inRow
      ? [along, y + HEAD + PAD + (box.height - HEAD - 2 * PAD - child.height) / 2]
      : [x + (box.width - child.width) / 2, along];
    draw(root, child, left, top);
    along += (box.inRow ? child.width : child.height) + box.gap;
    if (box.step.kind === "order" && index + 1 < box.inner.length) {
      root.append(then(box, child, box.inner[index + 1], left, top));
    }
  });
}

/** The arrow from one child of an order to the next. */
function then(box, child, next, left, top) {
  const critical = child.step.isCritical && next.step.isCritical;
  const [x, y] = box.inRow ? [left + child.width, top + child.height / 2] : [left + child.width / 2, top + child.height];
  const d = box.inRow ? `M${x + 2} ${y} h${GAP - 5}` : `M${x} ${y + 2} v${GAP - 5}`;
  return svg("path", { d, class: critical ? "then critical" : "then", "marker-end": "url(#then)" });
}

function classesOf(step, kind) {
  return [kind, step.kind, step.isCritical && "critical", step.isFailed && "bad", !step.isGroup && !step.ran && "never"].filter(Boolean).join(" ");
}

function group({ step, width, height }, x, y) {
  const text = svg("text", { x: PAD, y: HEAD - 4 }, shortened(`${step.isCritical ? "◆ " : ""}${step.id}: ${WORDS[step.kind]}`, Math.floor(width / 7)));
  return svg("g", { class: classesOf(step, "group"), transform: `translate(${x} ${y})`, "data-step": step.id }, svg("rect", { width, height, rx: 8 }), text);
}

function leaf(step, x, y) {
  const marks = `${step.isCritical ? "◆ " : ""}${step.isFailed ? "✕ " : ""}`;
  const line = (y, text, kind) => svg("text", { x: BOX.width / 2, y, "text-anchor": "middle", class: kind }, shortened(text, LINE_LETTERS));
  return svg(
    "g",
    { class: classesOf(step, "leaf"), transform: `translate(${x} ${y})`, "data-step": step.id },
    svg("title", {}, words(step)),
    svg("rect", { ...BOX, rx: 6 }),
    line(18, marks + step.id, "name"),
    line(34, workOf(step)),
    line(49, step.ran ? duration(step.seconds) : "not run"),
  );
}

// The list.

function listItem(step) {
  const children = step.children.map(listItem);
  const list = children.length === 0 ? null : html(step.kind === "order" ? "ol" : "ul", {}, ...children);
  return html("li", { "data-step": step.id, class: step.isCritical ? "critical" : null }, words(step), list);
}

function words(step) {
  const facts = [
    step.isGroup ? WORDS[step.kind] : workOf(step),
    step.isGroup ? null : step.ran ? duration(step.seconds) : "not run",
    step.inputs.length > 0 ? `sees the results of ${step.inputs.join(", ")}` : null,
    step.tolerant ? "its failure is tolerated" : null,
    step.responds ? "its result is the response" : null,
    step.isCritical ? "on the critical path" : null,
    step.error !== null ? `failed: ${step.error}` : step.isFailed ? "failed" : null,
  ];
  return `${step.id}: ${facts.filter((fact) => fact !== null).join(", ")}`;
}
