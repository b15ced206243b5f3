// What happened in the last seconds: differences of the counters that the port gives.
//
// - Pure: answers of `/v1/state` go in, rates and quantiles come out. Null is what cannot be known yet.
// - A process that was started anew counts from zero: all that was known of the one before is dropped.
// - Not here: who asks (poll.js), what is shown.

/** How far back a figure looks. */
export const WINDOW_SECONDS = 10;
/** After a longer pause the old samples say nothing about now. */
const GAP_SECONDS = 15;
/** An answer may be as late as this; see poll.js. */
const LATE_SECONDS = 6;
/** Less is a matter of rounding. */
const PART_SECONDS_MIN = 1e-6;
/** Points of a small line. */
const POINTS_MAX = 60;

/** The answers of the last seconds. */
export class Samples {
  #kept = [];

  /** Takes one in, seen at this second of any steady clock; says whether the process is another one than before. */
  add(state, seen) {
    const last = this.#kept.at(-1);
    const restarted = last !== undefined && isRestart(last, { state, seen });
    if (restarted || (last && state.uptime_seconds - last.state.uptime_seconds > GAP_SECONDS)) {
      this.#kept = [];
    }
    this.#kept.push({ state, seen });
    while (this.#kept.length > 2 && state.uptime_seconds - this.#kept[1].state.uptime_seconds >= WINDOW_SECONDS) {
      this.#kept.shift();
    }
    return restarted;
  }

  /** What happened between the oldest and the newest. */
  view() {
    const now = this.#kept.at(-1).state;
    const before = this.#kept[0].state;
    const span = { now, before, seconds: now.uptime_seconds - before.uptime_seconds };
    const edges = edgesOf(span);
    const cells = cellsOf(span, edges);
    const total = totalOf(span, cells, edges);
    return { state: now, seconds: span.seconds, cells, edges, services: servicesOf(span), faults: faultsOf(span), refused: refusedOf(span), total };
  }
}

/** Rate and p99 of each cell, or of what else `rowsOf` takes of a view, over the last minute, for small lines. */
export class History {
  #rowsOf;
  #lines = new Map();

  constructor(rowsOf) {
    this.#rowsOf = rowsOf;
  }

  add(view) {
    const next = new Map();
    for (const one of this.#rowsOf(view)) {
      const line = this.#lines.get(one.service) ?? { rate: [], p99: [] };
      push(line.rate, one.rate);
      push(line.p99, one.p99?.seconds ?? null);
      next.set(one.service, line);
    }
    this.#lines = next;
  }

  of(service) {
    return this.#lines.get(service);
  }

  clear() {
    this.#lines.clear();
  }
}

function push(points, value) {
  points.push(value);
  if (points.length > POINTS_MAX) {
    points.shift();
  }
}

function isRestart(last, next) {
  const uptime = next.state.uptime_seconds;
  if (uptime < last.state.uptime_seconds || uptime + LATE_SECONDS < last.state.uptime_seconds + next.seen - last.seen) {
    return true;
  }
  const before = new Map(last.state.cells.map((cell) => [cell.service, cell.requests]));
  return next.state.cells.some((cell) => cell.requests < (before.get(cell.service) ?? 0));
}

function cellsOf({ now, before, seconds }, edges) {
  const old = new Map(before.cells.map((cell) => [cell.service, cell]));
  const bounds = now.histogram_bounds_seconds;
  return now.cells.map((cell) => {
    const was = old.get(cell.service);
    const requests = difference(cell.duration, was?.duration);
    const part = (name) => sumOf(cell.calls.map((call) => difference(call[name], callOf(was, call.kind)?.[name])));
    const calls = { duration: part("duration"), queue: part("queue"), run: part("run") };
    const answers = totalAnswers(cell) - totalAnswers(was);
    const errors = failedAnswers(cell) - failedAnswers(was);
    return {
      service: cell.service,
      total: cell.requests,
      rate: perSecond(cell.requests - (was?.requests ?? 0), seconds),
      errorRate: perSecond(errors, seconds),
      errorShare: answers > 0 ? errors / answers : null,
      p50: quantile(requests, bounds, 0.5),
      p99: quantile(requests, bounds, 0.99),
      queueP99: quantile(calls.queue, bounds, 0.99),
      runP99: quantile(calls.run, bounds, 0.99),
      parts: partsOf(requests, calls, edges.filter((edge) => edge.from === cell.service)),
      mean: requests.count > 0 ? requests.sum / requests.count : null,
      inFlight: cell.in_flight,
      instancesBusy: cell.instances_busy,
      memoryBytes: cell.memory_bytes,
      faults: totalFaults(cell),
      newFaults: newFaults(cell, was),
    };
  });
}

/** Seconds per request and where they went, most first. What runs side by side adds up to more than the request took. */
function partsOf(requests, { duration, queue, run }, edges) {
  if (requests.count === 0) {
    return [];
  }
  const mean = (kind, sum) => ({ kind, callee: null, seconds: sum / requests.count });
  const own = [mean("run", run.sum), mean("queue", queue.sum), mean("idle", duration.sum - queue.sum - run.sum)];
  const others = edges.map((edge) => ({ kind: "call", callee: edge.to, seconds: edge.seconds / requests.count }));
  return [...own, ...others].filter((part) => part.seconds >= PART_SECONDS_MIN).sort((a, b) => b.seconds - a.seconds);
}

function edgesOf({ now, before, seconds }) {
  const key = (edge) => JSON.stringify([edge.from, edge.to]);
  const old = new Map(before.edges.map((edge) => [key(edge), edge]));
  const bounds = now.histogram_bounds_seconds;
  return now.edges.map((edge) => {
    const was = old.get(key(edge));
    const calls = edge.calls - (was?.calls ?? 0);
    const errors = edge.errors - (was?.errors ?? 0);
    const took = difference(edge.duration, was?.duration);
    return {
      from: edge.from,
      to: edge.to,
      total: edge.calls,
      rate: perSecond(calls, seconds),
      errorRate: perSecond(errors, seconds),
      errorShare: calls > 0 ? errors / calls : null,
      seconds: took.sum,
      took,
      p50: quantile(took, bounds, 0.5),
      p99: quantile(took, bounds, 0.99),
    };
  });
}

/** Services as clients and the DPA see them. */
function servicesOf({ now, before, seconds }) {
  const old = new Map((before.services ?? []).map((service) => [service.service, service]));
  const here = new Set(now.cells.map((cell) => cell.service));
  return (now.services ?? []).map((service) => {
    const about = { service: service.service, workers: service.workers, elsewhere: service.elsewhere, circuitOpen: service.circuit_open };
    const clients = clientsOf(service.clients, old.get(service.service)?.clients, now.histogram_bounds_seconds, seconds);
    return { ...about, isHere: here.has(service.service), ...clients };
  });
}

/** What clients had of a service. Where none can come, nothing is known. */
function clientsOf(now, was, bounds, seconds) {
  if (!now) {
    return { total: null, rate: null, errorRate: null, errorShare: null, failedShare: null, refusedRate: null, refusedFor: [], inFlight: null, p50: null, p99: null, mean: null };
  }
  const since = (name) => now[name] - (was?.[name] ?? 0);
  const took = difference(now.duration, was?.duration);
  const [failed, refused, answered] = [since("failed"), since("refused"), since("answered")];
  return {
    total: now.requests,
    rate: perSecond(since("requests"), seconds),
    errorRate: perSecond(failed + refused, seconds),
    errorShare: answered + refused > 0 ? (failed + refused) / (answered + refused) : null,
    failedShare: answered > 0 ? failed / answered : null,
    refusedRate: perSecond(refused, seconds),
    refusedFor: ratesOf(now.refused_for, was?.refused_for, seconds).map(([reason, rate]) => ({ reason, rate })),
    inFlight: now.in_flight,
    p50: quantile(took, bounds, 0.5),
    p99: quantile(took, bounds, 0.99),
    mean: took.count > 0 ? took.sum / took.count : null,
  };
}

/** What the DPA has answered itself, most first. */
function faultsOf({ now, before, seconds }) {
  return ratesOf(now.custody?.faults, before.custody?.faults, seconds).map(([fault, rate]) => ({ fault, rate }));
}

/** What the network side has refused, by reason, most first. */
function refusedOf({ now, before, seconds }) {
  const of = (what) => ratesOf(now.refused?.[what], before.refused?.[what], seconds).map(([reason, rate]) => ({ reason, rate }));
  return { requests: of("requests"), connections: of("connections"), heads: of("heads") };
}

/** Of counts by name, how often each was counted: those that were, most first. */
function ratesOf(now, was, seconds) {
  const rates = Object.entries(now ?? {}).map(([name, number]) => [name, perSecond(number - (was?.[name] ?? 0), seconds)]);
  return rates.filter(([, rate]) => rate > 0).sort((a, b) => b[1] - a[1]);
}

/** Of what clients asked for; in a process that no client reaches, of all that its cells were asked; where no cells are, of all that the DPA took. */
function totalOf({ now, before, seconds }, cells, edges) {
  const entries = edges.filter((edge) => edge.from === null);
  const asked = entries.length > 0 ? entries : cells;
  const durations = entries.length > 0
    ? sumOf(entries.map((edge) => edge.took))
    : differenceOfAll(now.cells, before.cells);
  const sum = (name) => (seconds > 0 ? asked.reduce((all, one) => all + one[name], 0) : null);
  const cpu = cpuOf(now, before, seconds);
  if (edges.length === 0 && now.hosts_cells === false && !hasClients(now)) {
    return { ...ofCustody(now, before, seconds), cpuCores: cpu };
  }
  return {
    whose: entries.length > 0 || hasClients(now) ? "of clients" : "of all cells",
    rate: sum("rate"),
    errorRate: sum("errorRate"),
    p50: quantile(durations, now.histogram_bounds_seconds, 0.5),
    p99: quantile(durations, now.histogram_bounds_seconds, 0.99),
    cpuCores: cpu,
  };
}

function hasClients(state) {
  return (state.services ?? []).some((service) => service.clients !== null);
}

function cpuOf(now, before, seconds) {
  const [cpu, cpuBefore] = [now.process?.cpu_seconds ?? null, before.process?.cpu_seconds ?? null];
  return cpu === null || cpuBefore === null ? null : perSecond(cpu - cpuBefore, seconds);
}

/** How long they took the DPA does not know. */
function ofCustody(now, before, seconds) {
  const faults = ({ custody }) => Object.values(custody?.faults ?? {}).reduce((sum, number) => sum + number, 0);
  return {
    whose: "through the DPA",
    rate: perSecond((now.custody?.requests ?? 0) - (before.custody?.requests ?? 0), seconds),
    errorRate: perSecond(faults(now) - faults(before), seconds),
    p50: null,
    p99: null,
  };
}

function differenceOfAll(now, before) {
  const old = new Map(before.map((cell) => [cell.service, cell]));
  return sumOf(now.map((cell) => difference(cell.duration, old.get(cell.service)?.duration)));
}

function perSecond(number, seconds) {
  return seconds > 0 ? number / seconds : null;
}

function callOf(cell, kind) {
  return cell?.calls.find((call) => call.kind === kind);
}

function totalAnswers(cell) {
  return Object.values(cell?.answered ?? {}).reduce((sum, number) => sum + number, 0);
}

function failedAnswers(cell) {
  return (cell?.answered["5xx"] ?? 0) + (cell?.answered.other ?? 0);
}

function totalFaults(cell) {
  return Object.values(cell.faults).reduce((sum, number) => sum + number, 0);
}

/** What failed since the sample before, by kind. */
function newFaults(cell, was) {
  const since = Object.entries(cell.faults).map(([kind, number]) => [kind, number - (was?.faults[kind] ?? 0)]);
  return since.filter(([, number]) => number > 0);
}

/** What came to a histogram since `was`. */
function difference(now, was) {
  const old = was?.buckets ?? [];
  const buckets = (now?.buckets ?? []).map((number, index) => number - (old[index] ?? 0));
  return { count: (now?.count ?? 0) - (was?.count ?? 0), sum: (now?.sum_seconds ?? 0) - (was?.sum_seconds ?? 0), buckets };
}

function sumOf(histograms) {
  const sum = { count: 0, sum: 0, buckets: [] };
  for (const histogram of histograms) {
    sum.count += histogram.count;
    sum.sum += histogram.sum;
    histogram.buckets.forEach((number, index) => {
      sum.buckets[index] = (sum.buckets[index] ?? 0) + number;
    });
  }
  return sum;
}

/** `{seconds, beyond}` by linear interpolation inside a bucket; `beyond` the last bound only that is known. */
export function quantile(histogram, bounds, q) {
  const count = histogram.buckets.reduce((sum, number) => sum + number, 0);
  let rank = q * count;
  for (const [index, number] of histogram.buckets.entries()) {
    if (number > 0 && rank <= number) {
      return index >= bounds.length
        ? { seconds: bounds.at(-1), beyond: true }
        : { seconds: between(bounds[index - 1] ?? 0, bounds[index], rank / number), beyond: false };
    }
    rank -= number;
  }
  return null;
}

function between(low, high, part) {
  return low + (high - low) * part;
}
