// Making and updating elements.
//
// - What others wrote (targets, errors, names) only ever becomes text: nothing on this page parses markup.
// - A row that stays keeps its element, and with it the focus.
// - Not here: what is shown.

const SVG = "http://www.w3.org/2000/svg";

/** The element of index.html with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** An HTML element. Children are nodes or text; null is left out. */
export function html(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** An SVG element. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A drawing that shrinks where there is little room, down to this part of its size; then it is scrolled. */
export function drawing(kind, [left, top, width, height], shrunkMin, title) {
  const id = `${kind}-title`;
  const viewBox = `${left} ${top} ${width} ${height}`;
  const root = svg("svg", { viewBox, width, class: `drawing ${kind}`, role: "img", "aria-labelledby": id }, svg("title", { id }, title));
  root.style.minWidth = `${width * shrunkMin}px`;
  return root;
}

/** Changes a text only if it is another one: nothing is laid out or read aloud anew for nothing. */
export function setText(node, text) {
  if (node.textContent !== text) {
    node.textContent = text;
  }
}

/** Makes the children of `parent` those of `items`, in this order. */
export function keyed(parent, items, keyOf, make, update) {
  const focused = document.activeElement;
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => ({ item, key: String(keyOf(item)) }));
  const keys = new Set(wanted.map(({ key }) => key));
  for (const [key, child] of old) {
    if (!keys.has(key)) {
      child.remove();
    }
  }
  let place = parent.firstElementChild;
  for (const { item, key } of wanted) {
    const child = old.get(key) ?? make(item);
    old.delete(key);
    child.dataset.key = key;
    update(child, item);
    if (child === place) {
      place = place.nextElementSibling;
    } else {
      parent.insertBefore(child, place);
    }
  }
  // What is moved loses the focus.
  if (focused !== document.activeElement && parent.contains(focused)) {
    focused.focus({ preventScroll: true });
  }
}
