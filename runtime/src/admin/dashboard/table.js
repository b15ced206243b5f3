// A table with a row for each service, sorted by any column.
//
// - A column has `name`, `text` of a row, `by` what is sorted, and may have `title`, `ascending` (small ones first), `bad` (is it
//   worth a look) and `spark` (which line of the history is drawn). The first one is the service.
// - Bounded: so many rows are shown, and how many are left out is said.

import { byId, html, keyed, setText, svg } from "./dom.js";
import { plural } from "./format.js";

const ROWS_MAX = 400;
const SPARK = { width: 64, height: 18 };

/** The table whose parts have ids that begin with `id`. */
export class ServiceTable {
  #id;
  #columns;
  #onService;
  #column;
  #ascending = false;
  #shown = null;

  /** `sorted`: the column that it is sorted by at first. `onService`: what a click on a service does, if anything. */
  constructor(id, columns, sorted, onService = null) {
    this.#id = id;
    this.#columns = columns;
    this.#column = sorted;
    this.#ascending = Boolean(columns[sorted].ascending);
    this.#onService = onService;
    byId(`${id}-head`).append(...columns.map((column, index) => this.#heading(column, index)));
  }

  /** Shows these rows; `none` is said where there are none. */
  show(rows, none, history = null) {
    this.#shown = { rows, none, history };
    const { by } = this.#columns[this.#column];
    const sign = this.#ascending ? 1 : -1;
    const sorted = [...rows].sort((a, b) => sign * compare(by(a), by(b)) || compare(a.service, b.service));
    const update = (node, row) => this.#update(node, row, history);
    keyed(byId(this.#id), sorted.slice(0, ROWS_MAX), (row) => row.service, (row) => this.#row(row), update);
    setText(byId(`${this.#id}-note`), note(rows.length, none));
    this.#markSorted();
  }

  #heading(column, index) {
    const button = html("button", { type: "button", title: column.title }, column.name);
    button.addEventListener("click", () => this.#sort(index));
    return html("th", { scope: "col", class: index > 0 ? "number" : null }, button);
  }

  #sort(index) {
    this.#ascending = index === this.#column ? !this.#ascending : Boolean(this.#columns[index].ascending);
    this.#column = index;
    if (this.#shown === null) {
      this.#markSorted();
    } else {
      this.show(this.#shown.rows, this.#shown.none, this.#shown.history);
    }
  }

  #markSorted() {
    for (const [index, heading] of [...byId(`${this.#id}-head`).children].entries()) {
      if (index === this.#column) {
        heading.setAttribute("aria-sort", this.#ascending ? "ascending" : "descending");
      } else {
        heading.removeAttribute("aria-sort");
      }
    }
  }

  #row({ service }) {
    const numbers = this.#columns.slice(1).map((column) =>
      html("td", { class: "number" }, column.spark ? spark() : null, html("span")));
    return html("tr", {}, html("th", { scope: "row" }, this.#name(service)), ...numbers);
  }

  #name(service) {
    if (this.#onService === null) {
      return service;
    }
    const button = html("button", { type: "button", class: "plain", title: `${service}: show its requests` }, service);
    button.addEventListener("click", () => this.#onService(service));
    return button;
  }

  #update(node, row, history) {
    this.#columns.forEach((column, index) => {
      if (index > 0) {
        const place = node.children[index];
        const bad = column.bad?.(row) ?? false;
        place.classList.toggle("bad", bad);
        setText(place.lastElementChild, (bad ? "✕ " : "") + column.text(row));
        if (column.spark) {
          drawSpark(place.firstElementChild, history?.of(row.service)?.[column.spark] ?? []);
        }
      }
    });
  }
}

function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

function note(rows, none) {
  if (rows === 0) {
    return none;
  }
  return rows > ROWS_MAX ? `${plural(rows - ROWS_MAX, "more row")} are left out.` : "";
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
