// How full rings, pools and other limits are.

import { byId, html, keyed, setText } from "./dom.js";
import { bytes, count, share } from "./format.js";

/** From here on a limit is worth a look. */
const NEARLY_FULL = 0.8;

/** Shows them. */
export function showGauges({ state }) {
  keyed(byId("gauges"), state.gauges, (gauge) => gauge.name, makeGauge, updateGauge);
  setText(byId("gauges-note"), state.gauges.length === 0 ? "This process has none." : "");
}

function makeGauge(gauge) {
  const meter = html("div", { class: "meter", role: "meter", "aria-label": gauge.name, "aria-valuemin": 0 }, html("div"));
  const heading = html("p", { class: "gauge-name" }, html("strong", {}, gauge.name), html("span", { class: "number" }));
  return html("li", {}, heading, meter, html("p", { class: "muted" }, gauge.help));
}

function updateGauge(item, gauge) {
  const part = gauge.max > 0 ? gauge.value / gauge.max : null;
  const text = `${amount(gauge)}${part === null ? "" : `, ${share(part)}`}${warning(part)}`;
  setText(item.children[0].children[1], text);
  item.classList.toggle("bad", part >= NEARLY_FULL);
  updateMeter(item.children[1], gauge, part, text);
}

function amount({ value, max, unit }) {
  const said = unit === "bytes" ? bytes : count;
  const of = max === null ? "" : ` of ${said(max)}`;
  return `${said(value)}${of}${unit && unit !== "bytes" ? ` ${unit}` : ""}`;
}

function warning(part) {
  return part >= 1 ? ": full" : part >= NEARLY_FULL ? ": nearly full" : "";
}

function updateMeter(meter, gauge, part, text) {
  meter.hidden = part === null;
  meter.setAttribute("aria-valuenow", gauge.value ?? 0);
  meter.setAttribute("aria-valuemax", gauge.max ?? 0);
  meter.setAttribute("aria-valuetext", text);
  meter.firstElementChild.style.width = `${100 * Math.min(part ?? 0, 1)}%`;
}
