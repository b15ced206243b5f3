// The page as a whole: asks, and gives what comes to its parts.
//
// - A part shows what it is given and asks for nothing, but request.js for the one request that was chosen.
// - What was seen last stays on the page while the port is silent, and the page says how old it is.
// - Only what a reader has to know at once goes to the live region: silence, restart, readiness.

import { cellTable } from "./cells.js";
import { byId, setText } from "./dom.js";
import { clock, duration } from "./format.js";
import { showGauges } from "./gauges.js";
import { ask, Poll } from "./poll.js";
import { showRefusals } from "./refusals.js";
import { followAddress } from "./request.js";
import { Requests } from "./requests.js";
import { History, Samples } from "./samples.js";
import { Services } from "./services.js";
import { showSlow } from "./slow.js";
import { showSummary } from "./summary.js";
import { showTopology } from "./topology.js";

const samples = new Samples();
const cellHistory = new History((view) => view.cells);
const serviceHistory = new History((view) => view.services);
const requests = new Requests();
const chooseService = (service) => requests.choose(service);
const cells = cellTable(chooseService);
const services = new Services();
let seenMs = null;
let wasReady = null;

async function turn() {
  const [state, kept] = await Promise.all([ask("/v1/state"), ask("/v1/requests")]);
  const restarted = samples.add(state, performance.now() / 1000);
  if (restarted) {
    cellHistory.clear();
    serviceHistory.clear();
  }
  const view = samples.view();
  cellHistory.add(view);
  serviceHistory.add(view);
  show(view, kept);
  endSilence();
  tellReadiness(state);
  if (restarted) {
    tell("cellmesh was started anew; its counters begin at zero.");
  }
  seenMs = Date.now();
}

function show(view, kept) {
  showWhatIsHere(view.state);
  showSummary(view);
  showRefusals(view);
  showTopology(view, chooseService);
  showSlow(view);
  services.show(view, serviceHistory);
  cells.show(view.cells, "No cell runs here yet.", cellHistory);
  requests.show(kept, view.cells.map((cell) => cell.service));
  showGauges(view);
}

/** A process shows what it has: cells and their requests, calls, services. */
function showWhatIsHere({ hosts_cells: hasCells, services: known }) {
  const hasClients = known.some((service) => service.clients !== null);
  const here = { cells: hasCells, calls: hasCells || hasClients, services: known.length > 0, others: !hasCells };
  for (const node of document.querySelectorAll("[data-of]")) {
    node.hidden = !here[node.dataset.of];
  }
}

function silence(error, pauseMs) {
  if (!isOfPort(error)) {
    console.error(error);
  }
  const old = seenMs === null ? "Nothing was seen yet." : `What is shown is from ${clock(seenMs)}.`;
  setText(byId("silence-text"), `✕ The admin port does not answer: ${error.message}. Next try in ${duration(pauseMs / 1000)}. ${old}`);
  if (byId("silence").hidden) {
    tell("The admin port does not answer.");
  }
  byId("silence").hidden = false;
  document.body.classList.add("stale");
  document.title = "cellmesh: NO ANSWER";
}

/** Whether `ask` made it; everything else is a mistake of this page. */
function isOfPort(error) {
  return error.cause !== undefined;
}

function endSilence() {
  if (!byId("silence").hidden) {
    byId("silence").hidden = true;
    document.body.classList.remove("stale");
    tell("The admin port answers again.");
  }
}

function tellReadiness(state) {
  if (wasReady !== null && wasReady !== state.ready) {
    tell(state.ready ? "Ready." : `Not ready: ${state.missing.join("; ")}.`);
  }
  wasReady = state.ready;
}

function tell(text) {
  setText(byId("news"), text);
}

const poll = new Poll(turn, silence);

byId("ask-now").addEventListener("click", () => poll.now());
byId("pause").addEventListener("click", () => {
  poll.paused = !poll.paused;
  setText(byId("pause"), poll.paused ? "Paused: go on" : "Pause");
});
followAddress();
poll.now();
