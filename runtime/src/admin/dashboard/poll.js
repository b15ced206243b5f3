// Asks the port again and again: every second while somebody looks, ever less often while it does not answer.

const INTERVAL_MS = 1000;
const PAUSE_MS_MAX = 10_000;
/** A port that takes longer is as good as silent. */
const PATIENCE_MS = 5000;

/** One answer as JSON; an error says what went wrong in words for the reader. */
export async function ask(path) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new Error(late ? `no answer within ${PATIENCE_MS / 1000} s` : "the connection failed", { cause: error });
  }
  const text = await answer.text();
  if (!answer.ok) {
    throw new Error(reason(text) ?? `it answered with status ${answer.status}`, { cause: answer.status });
  }
  return JSON.parse(text);
}

function reason(text) {
  try {
    return JSON.parse(text).error;
  } catch {
    return text.trim().split("\n")[0] || undefined;
  }
}

/** Calls `turn` again and again; `failed(error, pauseMs)` is told how long it waits after a failure. */
export class Poll {
  #turn;
  #failed;
  #timer = null;
  #busy = false;
  #paused = false;
  #failures = 0;

  constructor(turn, failed) {
    this.#turn = turn;
    this.#failed = failed;
    document.addEventListener("visibilitychange", () => this.now());
  }

  get paused() {
    return this.#paused;
  }

  set paused(paused) {
    this.#paused = paused;
    this.now();
  }

  /** The next turn begins now, if there is to be one. */
  now() {
    clearTimeout(this.#timer);
    if (!this.#busy && !this.#paused && !document.hidden) {
      this.#run();
    }
  }

  async #run() {
    this.#busy = true;
    let pause = INTERVAL_MS;
    try {
      await this.#turn();
      this.#failures = 0;
    } catch (error) {
      pause = Math.min(INTERVAL_MS * 2 ** this.#failures, PAUSE_MS_MAX);
      this.#failures += 1;
      this.#failed(error, pause);
    }
    this.#busy = false;
    this.#timer = setTimeout(() => this.now(), pause);
  }
}
