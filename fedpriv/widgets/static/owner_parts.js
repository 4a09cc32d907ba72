// Small parts that the screens of the data owner's console share.

import { h } from "./dom.js";
import { button } from "./panel.js";

const DECISIONS = {
  pending: ["fp-warn", "● waits for you"],
  approved: ["fp-good", "✓ approved"],
  rejected: ["fp-bad", "✗ rejected"],
  revoked: ["fp-bad", "✗ withdrawn"],
  withheld: ["fp-bad", "✗ withheld"],
};

/** What was decided, as a word with a sign. */
export function badge(decision) {
  const [tone, words] = DECISIONS[decision] ?? ["", decision];
  return mark(tone, words, { "data-decision": decision });
}

export function mark(tone, words, props) {
  return h("span", { class: `fp-badge ${tone}`, ...props }, words);
}

export function notice(tone, ...children) {
  return h("div", { class: `fp-notice ${tone}` }, h("div", { class: "fp-notice-text" }, children));
}

/** A moment as people write it, in the reader's own time zone. */
export function clock(seconds) {
  if (!seconds) return "–";
  const at = new Date(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return h("time", { datetime: at.toISOString() }, `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`);
}

/** Tabs; the arrow keys go from one to the next. `tabs` are [name, label, new words or ""]. */
export function tabs(name, list, chosen, choose) {
  const step = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const at = list.findIndex(([id]) => id === chosen);
    const [next] = list[(at + by + list.length) % list.length];
    event.currentTarget.querySelector(`[data-tab="${next}"]`)?.focus();
    choose(next);
  };
  return h(
    "div",
    { class: "fp-tabs", role: "tablist", "aria-label": name, onkeydown: step },
    list.map(([id, label, news]) =>
      h(
        "button",
        {
          key: id,
          type: "button",
          class: "fp-tab",
          role: "tab",
          "data-tab": id,
          "aria-selected": id === chosen ? "true" : "false",
          tabindex: id === chosen ? "0" : "-1",
          onclick: () => choose(id),
        },
        label,
        news ? h("span", { class: "fp-news" }, ` ${news}`) : null,
      ),
    ),
  );
}

/** What a tab shows. */
export function pane(label, ...children) {
  return h("div", { key: `pane ${label}`, role: "tabpanel", "aria-label": label, class: "fp-pane" }, children);
}

/**
 * A decision that takes a second click: the first asks, the second does.
 *
 * @param {{ui, redraw, name: string, label: string, question: string, yes: string, act: () => void, off?: boolean}} step
 */
export function twice({ ui, redraw, name, label, question, yes, act, off = false }) {
  const set = (value, focus) => (event) => {
    const root = event.currentTarget.closest(".fp-panel");
    ui.sure = value;
    redraw();
    // After the redraw, which was queued before: the focus goes to what came in the place of what was clicked.
    requestAnimationFrame(() => root?.querySelector(`[data-focus="${focus}"]`)?.focus());
  };
  if (ui.sure !== name || off) {
    return h(
      "div",
      { key: `${name} ask`, class: "fp-row" },
      button(label, set(name, `${name} no`), {
        class: "fp-button fp-danger",
        disabled: off,
        "data-do": name,
        "data-focus": `${name} ask`,
      }),
    );
  }
  return h(
    "div",
    { key: `${name} sure`, class: "fp-row fp-sure", role: "group", "aria-label": question },
    h("strong", {}, question),
    button("No, go back", set("", `${name} ask`), { "data-focus": `${name} no` }),
    button(
      yes,
      () => {
        ui.sure = "";
        act();
      },
      { class: "fp-button fp-danger", "data-do": `${name}-yes` },
    ),
  );
}

/** A labelled field with half a sentence of what it means. */
export function field(id, label, hint, input) {
  return h(
    "div",
    { key: id, class: "fp-field" },
    h("label", { for: id }, label),
    input,
    h("span", { class: "fp-quiet fp-hint", id: `${id}-hint` }, hint),
  );
}

/** Goes from page to page of a long text. */
export function pager(part, go) {
  if (part.pages < 2) return null;
  return h(
    "div",
    { class: "fp-row" },
    button("← Earlier lines", () => go(part.page - 1), { disabled: part.page === 0 }),
    h("span", {}, `Part ${part.page + 1} of ${part.pages}`),
    button("Later lines →", () => go(part.page + 1), { disabled: part.page + 1 >= part.pages }),
  );
}

export function facts(pairs) {
  return h(
    "dl",
    { class: "fp-facts" },
    pairs.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );
}
