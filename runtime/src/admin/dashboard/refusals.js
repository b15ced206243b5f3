// What the mesh refuses now, and why: requests, connections, heads.

import { byId, setText } from "./dom.js";
import { rate } from "./format.js";

/** Reasons that are named of each. */
const REASONS_MAX = 4;
const WORDS = { requests: "Requests refused", connections: "Connections not taken up", heads: "Heads that no request came of" };

/** Shows it, the most frequent reason first. */
export function showRefusals({ refused }) {
  const some = Object.entries(WORDS).filter(([what]) => refused[what].length > 0);
  const texts = some.map(([what, words]) => `${words}: ${reasons(refused[what], REASONS_MAX)}.`);
  setText(byId("refusals"), texts.length > 0 ? `✕ ${texts.join(" ")}` : "");
}

/** The first so many of these rates, and how many there are beside them. */
export function reasons(rates, shown) {
  const named = rates.slice(0, shown).map(({ reason, rate: perSecond }) => `${rate(perSecond)} ${reason}`);
  return named.join(", ") + (rates.length > shown ? `, and ${rates.length - shown} more` : "");
}
