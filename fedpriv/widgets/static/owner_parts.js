// Small parts that the screens of the data owner's console share.

import { h } from "./dom.js";
import { bar, button } from "./panel.js";

const DECISIONS = {
  pending: ["fp-warn", "● waits for you"],
  approved: ["fp-good", "✓ approved"],
  rejected: ["fp-bad", "✗ rejected"],
  revoked: ["fp-bad", "✗ withdrawn"],
  withheld: ["fp-bad", "✗ withheld"],
};

/** What was decided, as a word with a sign; an approval may have ended by itself. */
export function badge(decision, ends_s) {
  if (decision === "approved" && hasEnded(ends_s)) return mark("fp-warn", "! approval ended", { "data-decision": "ended" });
  const [tone, words] = DECISIONS[decision] ?? ["", decision];
  return mark(tone, words, { "data-decision": decision });
}

export function hasEnded(ends_s) {
  return Boolean(ends_s) && ends_s * 1000 <= Date.now();
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
 * @param {{name: string, about: string, label: string, question: string, yes: string, act: () => void, off?: boolean}} step
 *   `about` is what is decided on: another one has to be asked about again.
 */
export function twice({ ui, redraw }, { name, about, label, question, yes, act, off = false }) {
  const key = `${name} ${about}`;
  if (ui.sure !== key || off) {
    const first = (event) => {
      ui.sure = key;
      redraw();
      focusSoon(event, `[data-focus="${key} no"]`);
    };
    const props = { class: "fp-button fp-danger", disabled: off, "data-do": name, "data-focus": `${key} ask` };
    return h("div", { key: `${key} ask`, class: "fp-row" }, button(label, first, props));
  }
  const back = (event) => {
    ui.sure = "";
    redraw();
    focusSoon(event, `[data-focus="${key} ask"]`);
  };
  const second = (event) => {
    ui.sure = "";
    act();
    focusSoon(event, ".fp-tab[aria-selected=true]");
  };
  return h(
    "div",
    { key: `${key} sure`, class: "fp-row fp-sure", role: "group", "aria-label": question },
    h("strong", {}, question),
    button("No, go back", back, { "data-focus": `${key} no` }),
    button(yes, second, { class: "fp-button fp-danger", "data-do": `${name}-yes` }),
  );
}

/** Move the focus to the last that a selector finds: after the redraw, which was queued before. */
function focusSoon(event, selector) {
  const root = event.currentTarget.closest(".fp-panel");
  requestAnimationFrame(() => [...(root?.querySelectorAll(selector) ?? [])].pop()?.focus());
}

/** An id of this view alone: several consoles may be on one page. */
export function idOf(ui, name) {
  ui.id ??= `fp-${Math.random().toString(36).slice(2, 10)}`;
  return `${ui.id}-${name}`;
}

/** A labelled field with half a sentence of what it means; `props` are those of its input. */
export function field(ui, name, label, hint, tag, props, key = name) {
  const id = idOf(ui, key.replaceAll(" ", "-"));
  return h(
    "div",
    { key, class: "fp-field" },
    h("label", { for: id }, label),
    h(tag, { id, "data-field": name, "aria-describedby": `${id}-hint`, ...props }),
    h("span", { class: "fp-quiet fp-hint", id: `${id}-hint` }, hint),
  );
}

/** A box to tick. */
export function tick(ui, name, label, props) {
  const id = idOf(ui, name);
  return h(
    "div",
    { key: name, class: "fp-check" },
    h("input", { id, type: "checkbox", "data-field": name, ...props }),
    h("label", { for: id }, label),
  );
}

/** A decision that the researcher gets a reason for: the field, then two clicks. `step` is that of `twice`. */
export function withReason(page, step, label) {
  const { ui, redraw } = page;
  const key = `${step.name} ${step.about}`;
  ui.reasons ??= {};
  const reason = ui.reasons[key] ?? "";
  const oninput = (event) => {
    ui.reasons[key] = event.target.value;
    redraw();
  };
  const act = () => {
    delete ui.reasons[key];
    step.act(reason);
  };
  return [
    field(ui, `${step.name}-reason`, label, "the researcher reads it", "textarea", { rows: 2, maxlength: 2000, value: reason, oninput }, key),
    twice(page, { ...step, act, off: !reason.trim() }),
  ];
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

// What goes on in a process of its own for the open request, or ended without a result: a dry run or an audit.
export function trialOf({ view }, kind) {
  const { review: seen, trying } = view;
  return trying && trying.study === seen.study && trying.kind === kind ? trying : null;
}

export function starter({ view, ask }, trial, { kind, label, first }) {
  const { review: seen, trying } = view;
  return [
    h(
      "div",
      { class: "fp-row" },
      button(label, () => ask({ do: kind, study: seen.study }), {
        class: "fp-button fp-main",
        disabled: Boolean(trying?.running),
        "data-do": kind,
      }),
      trying?.running && !trial ? h("span", { class: "fp-quiet" }, "Another dry run or audit goes on now.") : null,
    ),
    trial?.running
      ? h(
          "div",
          { class: "fp-trying", role: "status", "data-trying": trial.step },
          bar(trial.step, trial.steps || 2, label),
          trial.stage ? `${trial.stage[0].toUpperCase()}${trial.stage.slice(1)}: ${trial.step} of ${trial.steps}` : first,
        )
      : null,
    trial?.problem ? notice("fp-bad", h("strong", {}, "✗ "), trial.problem) : null,
  ];
}
