// A small view layer: trees of plain objects, patched onto the page so that focus, scrolling and what is being typed stay.

/** What is shown of a list: lists in it are opened; `null` and `false` show nothing. */
const present = (children) => children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false);

/** A node of a tree: tag, attributes (functions are listeners), children. */
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, children: present(children) };
}

const SVG = "http://www.w3.org/2000/svg";

function create(node, svg) {
  if (typeof node !== "object") return document.createTextNode(String(node));
  const inSvg = svg || node.tag === "svg";
  const dom = inSvg ? document.createElementNS(SVG, node.tag) : document.createElement(node.tag);
  update(dom, node, inSvg);
  return dom;
}

function update(dom, node, svg) {
  const before = dom.hotswap ?? {};
  for (const name of Object.keys(before)) {
    if (!(name in node.props)) set(dom, name, null, before[name]);
  }
  for (const [name, value] of Object.entries(node.props)) {
    if (value !== before[name]) set(dom, name, value, before[name]);
  }
  dom.hotswap = node.props;
  patch(dom, node.children, svg);
}

function set(dom, name, value, before) {
  if (name.startsWith("on")) {
    if (before) dom.removeEventListener(name.slice(2), before);
    if (value) dom.addEventListener(name.slice(2), value);
  } else if (name === "grow") {
    dom.style.flexGrow = value ?? "";
  } else if (name === "value") {
    // What is being typed is never overwritten.
    if (document.activeElement !== dom) dom.value = value ?? "";
  } else if (value === null || value === undefined || value === false) {
    dom.removeAttribute(name);
  } else {
    dom.setAttribute(name, value === true ? "" : value);
  }
}

const keyOf = (node) => (typeof node === "object" ? node.props.key : undefined);

/** Makes a place's children what the tree says. Keyed ones are found again wherever they moved. */
export function patch(parent, children, svg = false) {
  const keyed = new Map();
  for (const child of parent.childNodes) {
    const key = child.hotswap?.key;
    if (key !== undefined) keyed.set(key, child);
  }
  let at = parent.firstChild;
  for (const node of present(children)) {
    const key = keyOf(node);
    let dom = key !== undefined ? keyed.get(key) : at;
    const text = typeof node !== "object";
    const same = dom && (text ? dom.nodeType === 3 : dom.nodeType === 1 && dom.localName === node.tag && dom.hotswap?.key === key);
    if (same) {
      if (text) {
        if (dom.data !== String(node)) dom.data = String(node);
      } else {
        update(dom, node, svg || node.tag === "svg");
      }
      if (dom === at) at = at.nextSibling;
      else parent.insertBefore(dom, at);
    } else {
      parent.insertBefore(create(node, svg), at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}
