// The table of cells: one row for each service that runs here.

import { bytes, count, quantile, rate, share } from "./format.js";
import { ServiceTable } from "./table.js";

/** See table.js. */
const COLUMNS = [
  { name: "Service", text: (cell) => cell.service, by: (cell) => cell.service, ascending: true },
  { name: "Requests/s", text: (cell) => rate(cell.rate), by: (cell) => cell.rate ?? -1, spark: "rate" },
  { name: "p50", text: (cell) => quantile(cell.p50), by: (cell) => cell.p50?.seconds ?? -1 },
  { name: "p99", text: (cell) => quantile(cell.p99), by: (cell) => cell.p99?.seconds ?? -1, spark: "p99" },
  { name: "Failed", text: (cell) => share(cell.errorShare), by: (cell) => cell.errorShare ?? -1, bad: (cell) => cell.errorShare > 0 },
  { name: "Waits p99", title: "until an instance is free, and a thread of the pool", text: (cell) => quantile(cell.queueP99), by: (cell) => cell.queueP99?.seconds ?? -1 },
  { name: "Runs p99", title: "one call of its code, on a thread", text: (cell) => quantile(cell.runP99), by: (cell) => cell.runP99?.seconds ?? -1 },
  { name: "In flight", text: (cell) => count(cell.inFlight), by: (cell) => cell.inFlight },
  { name: "Busy", title: "instances in use", text: (cell) => count(cell.instancesBusy), by: (cell) => cell.instancesBusy },
  { name: "Memory", title: "linear memory of its instances", text: (cell) => bytes(cell.memoryBytes), by: (cell) => cell.memoryBytes ?? -1 },
  { name: "Faults", title: "since the start", text: (cell) => count(cell.faults), by: (cell) => cell.faults, bad: (cell) => cell.newFaults.length > 0 },
  { name: "Requests", title: "since the start", text: (cell) => count(cell.total), by: (cell) => cell.total },
];
/** The slowest first. */
const SORTED = 3;

/** Makes the table; `onService` shows the requests of one. */
export function cellTable(onService) {
  return new ServiceTable("cells", COLUMNS, SORTED, onService);
}
