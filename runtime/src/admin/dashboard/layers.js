// Layers of a call graph: who calls is in an earlier layer than who is called.
//
// - Pure. Cycles are allowed: a call that closes one leads back, whatever it is.
// - A call over several layers has a lane in each of those between, which has a place among the names: its line goes around them.
// - No recursion: a chain may be as long as there are services.
// - Not here: places in pixels (places.js), and drawing (topology.js).
//
// Source: Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures", 1981.

/** Times that the layers are gone through to put callees beside their callers; more hardly move anything. */
const SWEEPS = 4;

/**
 * Names in layers, from `names` and `edges` ({from, to}) between them, each layer in the order in which it is to be drawn; and the
 * way of each edge: its caller, the lanes between, its callee. Lanes are symbols.
 *
 * - `isBundled`: edges to the same callee share their lanes.
 */
export function layersOf(names, edges, isBundled = false) {
  const calls = new Map(names.map((name) => [name, []]));
  for (const { from, to } of edges) {
    if (from !== to) {
      calls.get(from).push(to);
    }
  }
  const depth = depths(calls, withoutCycles(calls));
  const layers = [];
  for (const name of names) {
    (layers[depth.get(name)] ??= []).push(name);
  }
  const lanes = lanesOf(layers);
  const ways = edges.map((edge, index) => wayOf(edge, depth, (at, step) => lanes(at, isBundled ? [step, edge.to] : index)));
  const links = ways.flatMap((way) => way.slice(1).map((to, index) => ({ from: way[index], to })));
  return { layers: ordered(layers, links), ways };
}

/** Gives the lane of a key in a layer; a new one is put into the layer. */
function lanesOf(layers) {
  const known = new Map();
  return (at, of) => {
    const key = JSON.stringify([at, of]);
    if (!known.has(key)) {
      const lane = Symbol(key);
      known.set(key, lane);
      layers[at].push(lane);
    }
    return known.get(key);
  };
}

function wayOf({ from, to }, depth, laneAt) {
  const [start, end] = [depth.get(from), depth.get(to)];
  const step = Math.sign(end - start);
  const way = [from];
  for (let at = start + step; step !== 0 && at !== end; at += step) {
    way.push(laneAt(at, step));
  }
  return [...way, to];
}

/** Names in an order in which callers come first, as far as cycles allow it: depth first, last done first. */
function withoutCycles(calls) {
  const done = [];
  const seen = new Set();
  for (const start of calls.keys()) {
    const path = seen.has(start) ? [] : [{ name: start, next: 0 }];
    while (path.length > 0) {
      const top = path.at(-1);
      const callee = calls.get(top.name)[top.next];
      if (top.next === 0) {
        seen.add(top.name);
      }
      top.next += 1;
      if (callee === undefined) {
        done.push(path.pop().name);
      } else if (!seen.has(callee)) {
        path.push({ name: callee, next: 0 });
      }
    }
  }
  return done.reverse();
}

/** The longest way to each name, over calls that lead forward in `order`. */
function depths(calls, order) {
  const place = new Map(order.map((name, index) => [name, index]));
  const depth = new Map(order.map((name) => [name, 0]));
  for (const name of order) {
    for (const callee of calls.get(name)) {
      if (place.get(callee) > place.get(name)) {
        depth.set(callee, Math.max(depth.get(callee), depth.get(name) + 1));
      }
    }
  }
  return depth;
}

/** Each layer by the mean place of its neighbours, so that few calls cross. */
function ordered(layers, edges) {
  const neighbours = new Map(layers.flat().map((name) => [name, []]));
  for (const { from, to } of edges) {
    neighbours.get(from).push(to);
    neighbours.get(to).push(from);
  }
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    for (const layer of layers) {
      const place = new Map(layers.flatMap((names) => names.map((name, index) => [name, (index + 0.5) / names.length])));
      const mean = (name) => {
        const around = neighbours.get(name);
        return around.reduce((sum, other) => sum + place.get(other), 0) / Math.max(around.length, 1);
      };
      const means = new Map(layer.map((name) => [name, mean(name)]));
      layer.sort((a, b) => means.get(a) - means.get(b));
    }
  }
  return layers;
}
