// The services that this process leads to: what clients got of them, and who serves them. This is what node, dpu and dpa know.

import { byId, setText } from "./dom.js";
import { count, quantile, rate, share } from "./format.js";
import { reasons } from "./refusals.js";
import { ServiceTable } from "./table.js";

const NONE = "–";
const FAULTS_MAX = 4;

/** See table.js. */
const COLUMNS = [
  { name: "Service", text: (service) => service.service, by: (service) => service.service, ascending: true },
  { name: "Workers", title: "lanes of workers that are attached", text: workers, by: (service) => service.workers?.attached ?? -1, bad: lacksWorkers },
  { name: "Requests/s", title: "of clients", text: (service) => rate(service.rate), by: (service) => service.rate ?? -1, spark: "rate" },
  { name: "p50", text: (service) => quantile(service.p50), by: (service) => service.p50?.seconds ?? -1 },
  { name: "p99", text: (service) => quantile(service.p99), by: (service) => service.p99?.seconds ?? -1, spark: "p99" },
  { name: "Failed", title: "answers with 500 and above", text: (service) => share(service.failedShare), by: (service) => service.failedShare ?? -1, bad: (service) => service.failedShare > 0 },
  { name: "Refused", title: "answered by the mesh, with an error; the most frequent reason", text: refused, by: (service) => service.refusedRate ?? -1, bad: (service) => service.refusedRate > 0 },
  { name: "In flight", text: (service) => count(service.inFlight), by: (service) => service.inFlight ?? -1 },
  { name: "Circuit", text: circuit, by: (service) => Number(service.circuitOpen ?? -1), bad: (service) => service.circuitOpen === true },
  { name: "Requests", title: "of clients, since the start", text: (service) => count(service.total), by: (service) => service.total ?? -1 },
];
/** By name: one looks for a service here. */
const SORTED = 0;

function lacksWorkers({ workers, elsewhere }) {
  return workers !== null && (workers.ejected > 0 || (workers.attached === 0 && !elsewhere));
}

function workers({ workers, elsewhere, isHere }) {
  if (workers === null) {
    return isHere ? "here" : NONE;
  }
  const some = workers.attached > 0 ? count(workers.attached) : elsewhere ? "elsewhere" : "none";
  return workers.ejected > 0 ? `${some}, ${count(workers.ejected)} left out` : some;
}

function refused({ refusedRate, refusedFor }) {
  return refusedFor.length > 0 ? reasons(refusedFor, 1) : rate(refusedRate);
}

function circuit({ circuitOpen }) {
  return circuitOpen === null ? NONE : circuitOpen ? "open" : "closed";
}

/** The table, and below it what the DPA has answered itself. */
export class Services {
  #table = new ServiceTable("services", COLUMNS, SORTED);

  show(view, history) {
    this.#table.show(view.services, "This process leads to no service.", history);
    setText(byId("services-faults"), faults(view.faults));
  }
}

/** The most frequent first. */
function faults(rates) {
  const named = rates.map(({ fault, rate: perSecond }) => `${rate(perSecond)} ${fault}`);
  const rest = named.length > FAULTS_MAX ? `, and ${named.length - FAULTS_MAX} more` : "";
  return named.length > 0 ? `✕ The DPA answered itself, in place of a worker: ${named.slice(0, FAULTS_MAX).join(", ")}${rest}.` : "";
}
