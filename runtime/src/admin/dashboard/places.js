// Places in pixels of what the picture of calls has: boxes, lines, labels.
//
// - Pure. Everything is counted along the layers and across them: on a wide screen x and y, on a narrow one y and x.
// - Lines bend in the gaps between layers and are straight inside of them, labels stand in the gaps: neither meets a box.
// - Not here: what the layers are (layers.js), and drawing (topology.js).

export const NODE = { width: 136, height: 44 };
export const LABEL = { width: 116, height: 30 };
/** Of a label, the letters above its place. */
const LABEL_RISE = 11;
const MARGIN = 14;
/** A lane in a layer. */
const LANE = 26;
/** Beside labels, in a gap. */
const SPACE = 15;
/** Calls that lead back begin and end so far beside the others. */
const BACK = 10;
/** What an arrow is away from its box. */
const TIP = 4;
/** How far the line of a service that calls itself goes out. */
const LOOP = 22;
/** A layer that is longer than so many boxes, and than a screen: the others begin at the top too, where one looks first. */
const CENTRED_MAX = 9;

/** The size of all, the corner of each name, and of each way its line (`d`) and the place of its label, if `isLabelled` (of its index). */
export function placesOf({ layers, ways }, isLabelled, narrow) {
  const size = narrow ? { along: NODE.height, across: NODE.width, between: 16 } : { along: NODE.width, across: NODE.height, between: 28 };
  const depth = new Map(layers.flatMap((layer, index) => layer.map((id) => [id, index])));
  const { across, total } = acrossOf(layers, size);
  const labels = ways.map((way, index) => (isLabelled(index) ? labelOf(way, depth, across) : null));
  const gaps = layers.map((_, index) => {
    const inGap = labels.filter((label) => label?.gap === index);
    const last = index === layers.length - 1 && inGap.length === 0;
    return last ? 0 : narrow ? rows(inGap, total) : columns(inGap);
  });
  const starts = [MARGIN];
  for (const gap of gaps) {
    starts.push(starts.at(-1) + size.along + gap);
  }
  const layout = { across, size, narrow, start: (id) => starts[depth.get(id)], isBack: (one, other) => depth.get(one) > depth.get(other) };
  const lowest = Math.max(total, ...labels.map((label) => (label === null || narrow ? 0 : label.across + LABEL.height)));
  const [width, height] = turned([starts.at(-1) + MARGIN, lowest], narrow);
  return {
    width,
    height,
    corners: new Map(layers.flat().map((id) => [id, corner(id, layout)])),
    paths: ways.map((way, index) => ({ d: lineOf(way, layout), label: labels[index] && labelAt(labels[index], starts, layout) })),
  };
}

/** Along and across as x and y. */
function turned([along, across], narrow) {
  return narrow ? [across, along] : [along, across];
}

/** The middle of each name and lane, and the length of the longest layer. */
function acrossOf(layers, size) {
  const room = (id) => (typeof id === "symbol" ? LANE : size.across + size.between);
  const lengths = layers.map((layer) => layer.reduce((sum, id) => sum + room(id), 0));
  const longest = Math.max(size.across, ...lengths);
  const isCentred = longest <= CENTRED_MAX * (size.across + size.between);
  const across = new Map();
  for (const [index, layer] of layers.entries()) {
    let at = MARGIN + (isCentred ? (longest - lengths[index]) / 2 : 0);
    for (const id of layer) {
      across.set(id, at + room(id) / 2);
      at += room(id);
    }
  }
  return { across, total: longest + 2 * MARGIN };
}

function corner(id, { across, size, narrow, start }) {
  const [x, y] = turned([start(id), across.get(id) - size.across / 2], narrow);
  return { x, y };
}

// Labels.

/** In the gap beside the caller, in the middle of the line. */
function labelOf([from, to], depth, across) {
  const isBack = depth.get(from) > depth.get(to);
  const middle = (across.get(from) + across.get(to)) / 2;
  return { gap: Math.min(depth.get(from), depth.get(to)), across: middle + (isBack ? BACK : 0), row: 0 };
}

/** Layers are columns: labels of a gap are one below the other. Returns how wide it is. */
function columns(labels) {
  let least = -Infinity;
  for (const label of labels.sort((a, b) => a.across - b.across)) {
    label.across = Math.max(label.across, least);
    least = label.across + LABEL.height;
  }
  return LABEL.width + SPACE;
}

/** Layers are rows: labels of a gap are beside each other, in as many rows as it takes. Returns how high it is. */
function rows(labels, total) {
  const ends = [];
  const half = LABEL.width / 2;
  for (const label of labels.sort((a, b) => a.across - b.across)) {
    label.across = Math.min(Math.max(label.across, half), total - half);
    const free = ends.findIndex((end) => end <= label.across - half);
    label.row = free < 0 ? ends.length : free;
    ends[label.row] = label.across + half;
  }
  return Math.max(ends.length, 1) * LABEL.height + 2 * SPACE;
}

/** Where the middle of its first line is. */
function labelAt({ gap, across, row }, starts, { size, narrow }) {
  const start = starts[gap] + size.along;
  const along = narrow ? start + SPACE + LABEL_RISE + row * LABEL.height : (start + starts[gap + 1]) / 2;
  const [x, y] = turned([along, across], narrow);
  return { x, y };
}

// Lines.

function lineOf(way, layout) {
  const [from, to] = [way[0], way.at(-1)];
  if (from === to) {
    return loop(from, layout);
  }
  const { across, size, start, narrow } = layout;
  const isBack = layout.isBack(from, to);
  const [enter, leave] = isBack ? [size.along, 0] : [0, size.along];
  const shift = isBack ? BACK : 0;
  const point = (along, at) => turned([along, at], narrow).join(" ");
  let here = [start(from) + leave, across.get(from) + shift];
  let d = `M${point(...here)}`;
  for (const id of way.slice(1)) {
    const isEnd = id === to;
    const tip = isEnd ? (isBack ? TIP : -TIP) : 0;
    const next = [start(id) + enter + tip, across.get(id) + (isEnd ? shift : 0)];
    const middle = (here[0] + next[0]) / 2;
    d += ` C${point(middle, here[1])} ${point(middle, next[1])} ${point(...next)}`;
    here = [start(id) + leave, next[1]];
    d += isEnd ? "" : ` L${point(...here)}`;
  }
  return d;
}

/** Of a service that calls itself: out of the side where its callees are, and back. */
function loop(id, { across, size, start, narrow }) {
  const [along, middle] = [start(id) + size.along, across.get(id)];
  const points = [[along, middle - 12], [along + LOOP, middle - 20], [along + LOOP, middle + 20], [along + TIP, middle + 12]];
  const [a, b, c, d] = points.map((point) => turned(point, narrow).join(" "));
  return `M${a} C${b} ${c} ${d}`;
}
