// A small virtual DOM: what is to be seen is described anew each time, and only what changed is touched, so that nothing
// flickers and what a person types or has focused stays. Text is always text: nothing here reads HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Describe an element. `props` are attributes, `on...` handlers, `key` (among siblings), `value` and `checked`. */
export function h(tag, props, ...children) {
  const shown = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  return { tag, props: props ?? {}, key: props?.key, children: shown };
}

/** Make the children of a node be what is described. */
export function patch(parent, wanted) {
  const keyed = new Map();
  for (const node of parent.childNodes) if (node.fedprivKey !== undefined) keyed.set(node.fedprivKey, node);
  let next = parent.firstChild;
  for (const child of wanted.flat(Infinity)) {
    let node = child.key !== undefined ? keyed.get(child.key) : next?.fedprivKey === undefined ? next : null;
    if (!node || !fits(node, child)) node = make(parent, child);
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
    update(node, child);
  }
  while (next) {
    const gone = next;
    next = next.nextSibling;
    gone.remove();
  }
}

function fits(node, child) {
  if (child.tag === undefined) return node.nodeType === Node.TEXT_NODE;
  return node.nodeType === Node.ELEMENT_NODE && node.localName === child.tag;
}

function make(parent, child) {
  if (child.tag === undefined) return document.createTextNode("");
  const inSvg = child.tag === "svg" || parent.namespaceURI === SVG;
  const node = inSvg ? document.createElementNS(SVG, child.tag) : document.createElement(child.tag);
  if (child.key !== undefined) node.fedprivKey = child.key;
  return node;
}

function update(node, child) {
  if (child.tag === undefined) {
    const text = String(child);
    if (node.data !== text) node.data = text;
    return;
  }
  const before = node.fedprivProps ?? {};
  for (const name of Object.keys(before)) if (!(name in child.props)) set(node, name, null);
  for (const [name, value] of Object.entries(child.props)) {
    if (name !== "key" && name !== "value" && value !== before[name]) set(node, name, value);
  }
  patch(node, child.children);
  // After the children: a select has no value before its options. What a person is about to change stays theirs.
  const { value } = child.props;
  if (value !== undefined && value !== before.value && node.value !== String(value)) node.value = value;
  node.fedprivProps = child.props;
}

function set(node, name, value) {
  if (name.startsWith("on")) node[name] = value;
  else if (name === "checked") node.checked = Boolean(value);
  else if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : String(value));
}
