// Numbers as text: three digits, and always a unit.

const NONE = "–";
const DIGITS = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, useGrouping: false });
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const CLOCK = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** A duration in seconds. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) {
    return NONE;
  }
  if (seconds >= 120) {
    return `${WHOLE.format(Math.floor(seconds / 60))} min ${WHOLE.format(Math.floor(seconds % 60))} s`;
  }
  const [factor, unit] = seconds >= 0.9995 ? [1, "s"] : seconds >= 0.0009995 ? [1e3, "ms"] : [1e6, "µs"];
  return seconds === 0 ? "0 ms" : `${DIGITS.format(seconds * factor)} ${unit}`;
}

/** A quantile, which may lie beyond the last bound of its histogram. */
export function quantile(found) {
  return found === null ? NONE : `${found.beyond ? "> " : ""}${duration(found.seconds)}`;
}

/** So many per second. */
export function rate(perSecond) {
  if (perSecond === null) {
    return NONE;
  }
  return `${perSecond >= 100 ? WHOLE.format(perSecond) : DIGITS.format(perSecond)}/s`;
}

/** A share of one. */
export function share(of) {
  if (of === null) {
    return NONE;
  }
  return of > 0 && of < 0.001 ? "< 0.1 %" : `${DIGITS.format(of * 100)} %`;
}

/** A count. */
export function count(number) {
  return number === null || number === undefined ? NONE : WHOLE.format(number);
}

/** Bytes. */
export function bytes(number) {
  if (number === null || number === undefined) {
    return NONE;
  }
  const power = Math.min(Math.floor(Math.log2(Math.max(number, 1)) / 10), BYTE_UNITS.length - 1);
  return `${DIGITS.format(number / 1024 ** power)} ${BYTE_UNITS[power]}`;
}

/** Time of day, where the reader is. */
export function clock(unixMs) {
  return CLOCK.format(new Date(unixMs));
}

/** At most so many letters of a name that may have any length. */
export function shortened(text, lettersMax) {
  const letters = Array.from(text);
  return letters.length <= lettersMax ? text : `${letters.slice(0, lettersMax - 1).join("")}…`;
}

/** The same, with its end: names often differ in nothing else. */
export function shortenedInside(text, lettersMax) {
  const letters = Array.from(text);
  const tail = Math.floor((lettersMax - 1) / 2);
  const head = lettersMax - 1 - tail;
  return letters.length <= lettersMax ? text : `${letters.slice(0, head).join("")}…${letters.slice(-tail).join("")}`;
}

/** One thing, or several. */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
