// Where everything in the picture of calls is, as long as the same services call each other.
//
// - Figures come each second, and who calls whom hardly ever changes: layers and places are computed only when they may be others.
// - Calls are given by their names and not by how busy they are, which would be another order in each second.
// - Not here: layers (layers.js), places in pixels (places.js), and drawing (topology.js).

import { layersOf } from "./layers.js";
import { placesOf } from "./places.js";

export class Layout {
  #layers = new Remembered();
  #places = new Remembered();

  /** How often layers and places were computed. */
  get computed() {
    return [this.#layers.computed, this.#places.computed];
  }

  /**
   * As `placesOf`, of services and calls ({from, to}) between them. `isLabelled`: for each call. `isBundled`: calls of the same callee may
   * be one line.
   */
  of(names, calls, isLabelled, isBundled, narrow) {
    const layers = this.#layers.of([names, calls, isBundled], () => layersOf(names, calls, isBundled));
    return this.#places.of([names, calls, isBundled, isLabelled, narrow], () => placesOf(layers, (index) => isLabelled[index], narrow));
  }
}

/** What was computed last, and what of. */
class Remembered {
  computed = 0;
  #of = null;
  #value = null;

  of(what, compute) {
    const key = JSON.stringify(what);
    if (key !== this.#of) {
      this.#value = compute();
      this.#of = key;
      this.computed += 1;
    }
    return this.#value;
  }
}
