// The table of cells: one row for each service that runs here, sorted by any column.

import { byId, html, keyed, setText, svg } from "./dom.js";
import { bytes, count, plural, quantile, rate, share } from "./format.js";

const ROWS_MAX = 400;
const SPARK = { width: 64, height: 18 };

/** What is in a column: its text, what it is sorted by, and whether more of it comes first. */
const COLUMNS = [
  { name: "Service", text: (cell) => cell.service, by: (cell) => cell.service, ascending: true },
  { name: "Requests/s", text: (cell) => rate(cell.rate), by: (cell) => cell.rate ?? -1, spark: "rate" },
  { name: "p50", text: (cell) => quantile(cell.p50), by: (cell) => cell.p50?.seconds ?? -1 },
  { name: "p99", text: (cell) => quantile(cell.p99), by: (cell) => cell.p99?.seconds ?? -1, spark: "p99" },
  { name: "Failed", text: (cell) => share(cell.errorShare), by: (cell) => cell.errorShare ?? -1, bad: (cell) => cell.errorShare > 0 },
  { name: "Waits p99", title: "until an instance is free", text: (cell) => quantile(cell.queueP99), by: (cell) => cell.queueP99?.seconds ?? -1 },
  { name: "Runs p99", title: "one call of its code, on a thread", text: (cell) => quantile(cell.runP99), by: (cell) => cell.runP99?.seconds ?? -1 },
  { name: "In flight", text: (cell) => count(cell.inFlight), by: (cell) => cell.inFlight },
  { name: "Busy", title: "instances in use", text: (cell) => count(cell.instancesBusy), by: (cell) => cell.instancesBusy },
  { name: "Memory", title: "linear memory of its instances", text: (cell) => bytes(cell.memoryBytes), by: (cell) => cell.memoryBytes ?? -1 },
  { name: "Faults", title: "since the start", text: (cell) => count(cell.faults), by: (cell) => cell.faults, bad: (cell) => cell.newFaults.length > 0 },
  { name: "Requests", title: "since the start", text: (cell) => count(cell.total), by: (cell) => cell.total },
];

/** The table, and how it is sorted. */
export class Cells {
  #onService;
  #column = 3;
  #ascending = false;
  #shown = null;

  constructor(onService) {
    this.#onService = onService;
    byId("cells-head").append(...COLUMNS.map((column, index) => this.#heading(column, index)));
  }

  /** Shows what is known now. */
  show(view, history) {
    this.#shown = { view, history };
    const { by } = COLUMNS[this.#column];
    const sign = this.#ascending ? 1 : -1;
    const rows = [...view.cells].sort((a, b) => sign * compare(by(a), by(b)) || compare(a.service, b.service));
    keyed(byId("cells"), rows.slice(0, ROWS_MAX), (cell) => cell.service, (cell) => this.#row(cell), (row, cell) => updateRow(row, cell, history));
    setText(byId("cells-note"), note(rows.length));
    this.#markSorted();
  }

  #heading(column, index) {
    const button = html("button", { type: "button", title: column.title }, column.name);
    button.addEventListener("click", () => this.#sort(index));
    return html("th", { scope: "col", class: index > 0 ? "number" : null }, button);
  }

  #sort(index) {
    this.#ascending = index === this.#column ? !this.#ascending : Boolean(COLUMNS[index].ascending);
    this.#column = index;
    if (this.#shown === null) {
      this.#markSorted();
    } else {
      this.show(this.#shown.view, this.#shown.history);
    }
  }

  #markSorted() {
    for (const [index, heading] of [...byId("cells-head").children].entries()) {
      if (index === this.#column) {
        heading.setAttribute("aria-sort", this.#ascending ? "ascending" : "descending");
      } else {
        heading.removeAttribute("aria-sort");
      }
    }
  }

  #row(cell) {
    const button = html("button", { type: "button", class: "plain", title: "show its requests" }, cell.service);
    button.addEventListener("click", () => this.#onService(cell.service));
    const numbers = COLUMNS.slice(1).map((column) =>
      html("td", { class: "number" }, column.spark ? spark() : null, html("span")));
    return html("tr", {}, html("th", { scope: "row" }, button), ...numbers);
  }
}

function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

function note(rows) {
  if (rows === 0) {
    return "No cell runs in this process. Cells of a split node are at the admin ports of its workers (--admin).";
  }
  return rows > ROWS_MAX ? `${plural(rows - ROWS_MAX, "more row")} are left out.` : "";
}

function updateRow(row, cell, history) {
  COLUMNS.forEach((column, index) => {
    if (index > 0) {
      const place = row.children[index];
      const bad = column.bad?.(cell) ?? false;
      place.classList.toggle("bad", bad);
      setText(place.lastElementChild, (bad ? "✕ " : "") + column.text(cell));
      if (column.spark) {
        drawSpark(place.firstElementChild, history.of(cell.service)?.[column.spark] ?? []);
      }
    }
  });
}

/** A line without axes: the shape of the last minute, beside the figure. */
function spark() {
  return svg("svg", { class: "spark", width: SPARK.width, height: SPARK.height, viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, "aria-hidden": "true" }, svg("path"));
}

function drawSpark(node, points) {
  const known = points.map((value, index) => ({ value, index })).filter(({ value }) => value !== null);
  const top = Math.max(...known.map(({ value }) => value), Number.MIN_VALUE);
  const x = (index) => ((index + 60 - points.length) * SPARK.width) / 60;
  const y = (value) => SPARK.height - 2 - (value / top) * (SPARK.height - 4);
  const d = known.map(({ value, index }, at) => `${at === 0 ? "M" : "L"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  node.firstElementChild.setAttribute("d", d);
}
