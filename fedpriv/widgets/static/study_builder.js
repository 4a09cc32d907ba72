// A study that is being written: controls on one side, its text on the other, and below them what it would cost.

import { h } from "./dom.js";
import { panel, button, bar } from "./panel.js";
import { bars } from "./chart.js";

const FILES = ["plan.yaml", "train.py"];
const TYPING_MS = 250;
const LINE = "line-height:18px;font-family:var(--jp-code-font-family, monospace);font-size:12px;";

export default panel(({ view, ui, ask, redraw }) => {
  if (!view.name) return h("p", {}, "Reading the study…");
  begin(ui, view);
  const page = { view, ui, redraw, fixed: Boolean(view.submitted), ask: (message) => { flush(ui, ask); ask(message); }, type: ask };
  return h(
    "section",
    { "aria-label": `Study ${view.name}`, "data-valid": String(view.valid), "data-saved": String(view.saved), "data-work": view.work?.kind ?? "" },
    head(page),
    h(
      "div",
      { style: "display:grid;grid-template-columns:repeat(auto-fit, minmax(330px, 1fr));gap:14px;align-items:start" },
      form(page),
      texts(page),
    ),
    costs(page),
    trying(page),
    steps(page),
  );
});

// -- what only this page knows: texts that are being typed -----------------------------------------------------------

function begin(ui, view) {
  ui.page ??= Math.random().toString(36).slice(2);
  ui.file ??= FILES[0];
  ui.number ??= 0;
  ui.typed ??= {}; // by file: the text, and the number of its last change
  for (const file of FILES) {
    const typed = ui.typed[file];
    if (typed && typed.sent && view.typed.page === ui.page && view.typed.number >= typed.number) delete ui.typed[file];
  }
}

function typing(page, file, text) {
  const { ui, type, redraw } = page;
  ui.number += 1;
  ui.typed[file] = { text, number: ui.number, sent: false };
  clearTimeout(ui.timer);
  ui.timer = setTimeout(() => flush(ui, type), TYPING_MS);
  redraw();
}

function flush(ui, ask) {
  clearTimeout(ui.timer);
  for (const [file, typed] of Object.entries(ui.typed)) {
    if (typed.sent) continue;
    typed.sent = true;
    ask({ do: "text", file, text: typed.text, page: ui.page, number: typed.number });
  }
}

// -- head ------------------------------------------------------------------------------------------------------------

function head(page) {
  const { view } = page;
  const [sign, tone] = view.submitted ? ["✓ submitted", "fp-good"] : !view.valid ? ["✗ not right yet", "fp-bad"] : view.saved ? ["✓ saved", "fp-good"] : ["✎ draft", "fp-quiet"];
  return h(
    "div",
    {},
    h("div", { class: "fp-head" }, h("h2", {}, `Study ${view.name}`), h("span", { class: `fp-badge ${tone}` }, sign)),
    h("p", { class: "fp-quiet fp-standing" }, view.standing),
    working(page, "model"),
  );
}

/** What goes on of a kind, or what came of it, where the person who asked for it looks. */
function working({ view, ask }, kind) {
  const { work, notice } = view;
  if (work?.kind === kind) {
    return h(
      "div",
      { class: "fp-work", "data-kind": kind, style: "margin:6px 0" },
      h("p", { role: "status" }, `… ${work.words}`),
      work.steps ? [bar(work.step, work.steps, work.words), h("span", { class: "fp-quiet" }, `${work.step} of ${work.steps}`)] : null,
      kind === "try" ? h("p", {}, button("■ Stop the try", () => ask({ do: "stop" }), { class: "fp-button fp-small", "data-do": "stop" })) : null,
    );
  }
  if (notice?.kind !== kind) return null;
  return h("p", { class: `fp-notice ${notice.good ? "fp-good" : "fp-bad"}`, "data-kind": kind }, h("strong", {}, notice.good ? "✓ " : "✗ "), notice.text);
}

// -- the form --------------------------------------------------------------------------------------------------------

function form(page) {
  const { view } = page;
  return h(
    "div",
    { class: "fp-form", role: "group", "aria-label": "The plan as a form" },
    !view.readable ? h("p", { class: "fp-notice fp-warn" }, h("strong", {}, "! "), "The text cannot be read just now: the form shows what it said last.") : null,
    view.groups.map((group, number) =>
      h(
        "details",
        { key: group.name, open: number < 3, "data-group": group.name },
        h("summary", { style: "font-weight:600;padding:4px 0;cursor:pointer" }, group.name, wrongIn(group)),
        h("div", { class: "fp-fields", style: "grid-template-columns:repeat(auto-fill, minmax(150px, 1fr));padding:2px 0 10px" }, group.controls.map((one) => control(page, one))),
      ),
    ),
  );
}

function wrongIn(group) {
  const wrong = group.controls.filter((one) => one.wrong).length;
  return wrong ? h("span", { class: "fp-bad" }, ` ✗ ${wrong}`) : null;
}

function control(page, one) {
  const { view, fixed } = page;
  const disabled = fixed || !view.readable || Boolean(one.off);
  const chosen = one.kind === "choice" ? one.options.find(([value]) => value === one.value)?.[1] : "";
  const said = one.wrong || one.off || (chosen && chosen !== one.value ? chosen : "");
  return h(
    "label",
    { key: one.path, class: "fp-field", title: one.words || null },
    h("span", {}, one.label),
    one.kind === "choice" ? choice(page, one, disabled) : entry(page, one, disabled),
    said ? h("span", { class: one.wrong ? "fp-bad" : "fp-quiet", style: "font-size:12px;overflow-wrap:anywhere" }, one.wrong ? "✗ " : "", said) : null,
  );
}

function off(disabled) {
  return disabled ? "background:var(--fp-card);border-style:dashed;cursor:default" : "";
}

function choice({ ask }, one, disabled) {
  const onchange = (event) => ask({ do: "set", path: one.path, value: event.target.value });
  return h(
    "select",
    { "data-path": one.path, disabled, value: String(one.value), onchange, style: `width:100%;${off(disabled)}` },
    one.options.map(([value]) => h("option", { key: value, value }, value.replaceAll("_", " "))),
  );
}

function entry({ ask }, one, disabled) {
  const isText = one.kind === "text";
  const shown = one.value === null ? "" : String(one.value);
  const onchange = (event) => {
    const typed = event.target.value;
    if (isText) ask({ do: "set", path: one.path, value: typed });
    else if (typed === "" && one.optional) ask({ do: "set", path: one.path, value: null });
    else if (typed === "" || Number.isNaN(Number(typed))) event.target.value = shown;
    else ask({ do: "set", path: one.path, value: Number(typed) });
  };
  return h("input", {
    "data-path": one.path,
    type: isText ? "text" : "number",
    step: one.kind === "whole" ? 1 : "any",
    min: one.least,
    max: one.most,
    placeholder: one.optional ? "none" : null,
    "aria-invalid": one.wrong ? "true" : null,
    value: shown,
    disabled,
    onchange,
    style: `width:100%;${off(disabled)}`,
  });
}

// -- the text --------------------------------------------------------------------------------------------------------

function texts(page) {
  const { view, ui, redraw } = page;
  const stored = { "plan.yaml": view.text, "train.py": view.recipe };
  const text = ui.typed[ui.file]?.text ?? stored[ui.file];
  const troubles = ui.file === FILES[0] ? view.troubles : [];
  return h(
    "div",
    { role: "group", "aria-label": "The study as text" },
    h(
      "div",
      { class: "fp-tabs", role: "tablist", style: "margin-top:0" },
      FILES.map((file) =>
        h("button", { key: file, type: "button", class: "fp-tab", role: "tab", "aria-selected": String(file === ui.file), "data-file": file, onclick: () => { ui.file = file; redraw(); } }, file, file === FILES[0] && view.troubles.length ? " ✗" : ""),
      ),
    ),
    editor(page, ui.file, text, troubles),
    h(
      "div",
      { class: "fp-troubles" },
      troubles.map((trouble) =>
        h(
          "p",
          { class: "fp-bad" },
          h("strong", {}, "✗ "),
          trouble.line ? button(`line ${trouble.line}`, (event) => goTo(event, trouble.line), { class: "fp-button fp-small", "aria-label": `Go to line ${trouble.line}` }) : null,
          ` ${trouble.text}`,
        ),
      ),
      view.request_trouble ? h("p", { class: "fp-bad" }, h("strong", {}, "✗ "), view.request_trouble) : null,
    ),
    view.others.length ? h("p", { class: "fp-quiet" }, `With it go, as they lie in the study's folder: ${view.others.join(", ")}.`) : null,
  );
}

function editor(page, file, text, troubles) {
  const wrong = new Set(troubles.map((trouble) => trouble.line));
  const numbers = text.split("\n").map((_, i) => `${wrong.has(i + 1) ? "✗" : " "}${String(i + 1).padStart(4)}`).join("\n");
  return h(
    "div",
    { key: file, class: "fp-editor", style: "display:flex;height:min(640px, 72vh);border:1px solid var(--fp-edge);border-radius:4px;overflow:hidden" },
    h("pre", { class: "fp-quiet", "aria-hidden": "true", style: `${LINE}margin:0;padding:4px 4px 20px;overflow:hidden;height:100%;background:var(--fp-card)` }, numbers),
    h("textarea", {
      "data-file": file,
      "aria-label": `${file} as text`,
      "aria-invalid": wrong.size ? "true" : null,
      spellcheck: "false",
      wrap: "off",
      readonly: page.fixed,
      value: text,
      oninput: (event) => typing(page, file, event.target.value),
      onscroll: (event) => { event.target.previousSibling.scrollTop = event.target.scrollTop; },
      style: `${LINE}flex:1;min-width:0;border:0;border-radius:0;padding:4px 6px;resize:none;height:100%;overflow:auto;tab-size:4`,
    }),
  );
}

function goTo(event, line) {
  const area = event.target.closest(".fedpriv").querySelector("textarea");
  const before = area.value.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
  const end = area.value.indexOf("\n", before);
  area.focus();
  area.setSelectionRange(before, end < 0 ? area.value.length : end);
  area.scrollTop = Math.max(0, (line - 6) * 18);
}

// -- what it would cost, and a try -----------------------------------------------------------------------------------

function costs({ view }) {
  const { rows, levels } = view.estimates;
  if (!rows.length) return null;
  const words = new Map(levels.map((level) => [level.bytes, level.words]));
  return h(
    "div",
    { class: "fp-costs", "data-stale": String(!view.valid) },
    h("h3", {}, "What it would cost (estimated)"),
    view.valid ? null : h("p", { class: "fp-warn" }, "! Of the last text that was a plan."),
    h(
      "table",
      { class: "fp-wide" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col", style: "width:19%" }, "what"), h("th", { scope: "col", style: "width:33%" }, "estimate"), h("th", { scope: "col" }, "how it was got"))),
      h("tbody", {}, rows.map((row) => h("tr", { key: row.name }, h("th", { scope: "row" }, row.name), h("td", {}, row.value), h("td", { class: "fp-quiet" }, row.how)))),
    ),
    levels.length
      ? bars({
          title: "One update at each level",
          unit: "planned bytes, were all tensors at it",
          parts: ["bytes"],
          rows: levels.map((level) => ({ name: level.name, values: [level.bytes] })),
          format: (size) => words.get(size),
        })
      : null,
    view.words.length ? h("details", { class: "fp-words" }, h("summary", {}, "The plan in words"), h("ul", {}, view.words.map((words) => h("li", { key: words }, words)))) : null,
  );
}

function trying(page) {
  const { view, ui, ask, redraw } = page;
  ui.steps ??= 4;
  const { trial, work } = view;
  const ready = view.valid && !view.request_trouble && !work;
  return h(
    "div",
    { class: "fp-trying" },
    h("h3", {}, "Try it on mock data"),
    h("p", { class: "fp-quiet" }, "Here on this machine, in the sandbox of a real round, on made-up patients. Nothing is sent."),
    h(
      "div",
      { class: "fp-row" },
      h("label", {}, "steps ", h("input", { type: "number", class: "fp-steps", min: 1, max: 50, step: 1, value: ui.steps, style: "width:70px", oninput: (event) => { ui.steps = Math.min(50, Math.max(1, Math.round(Number(event.target.value)) || 1)); redraw(); } })),
      button("Try it", () => ask({ do: "try", steps: ui.steps }), { "data-do": "try", disabled: !ready }),
    ),
    working(page, "try"),
    trial
      ? h(
          "div",
          { class: "fp-trial", "data-good": String(trial.good) },
          h("p", { class: trial.good ? "fp-good" : "fp-bad" }, h("strong", {}, trial.good ? "✓ The last try ran to its end." : "✗ The last try did not."), trial.current ? "" : " It was of another text than the one above."),
          h("table", {}, h("tbody", {}, trial.rows.map(([name, words]) => h("tr", { key: name }, h("th", { scope: "row" }, name), h("td", {}, words))))),
          trial.log.length
            ? h("details", {}, h("summary", {}, "What the code wrote to its log"), h("div", { class: "fp-scroll", tabindex: 0, role: "region", "aria-label": "Log of the try" }, h("pre", { style: "margin:0;padding:4px 8px" }, trial.log.join("\n"))))
            : null,
        )
      : null,
  );
}

function steps(page) {
  const { view, ask, fixed } = page;
  return h("div", {}, working(page, "submit"), buttons({ view, ask, fixed }));
}

function buttons({ view, ask, fixed }) {
  if (fixed) return h("p", { class: "fp-quiet" }, "Next: ", h("code", {}, "RoundControl(builder.study)"), " shows what the data owners decide, and runs the rounds.");
  const right = view.valid && !view.request_trouble;
  return h(
    "div",
    { class: "fp-row", role: "group", "aria-label": "Saving and submitting", style: "margin-top:14px" },
    button("Save", () => ask({ do: "save" }), { "data-do": "save", disabled: !right || view.saved }),
    button("Save and submit to the data owners", () => ask({ do: "submit" }), { class: "fp-button fp-main", "data-do": "submit", disabled: !right || Boolean(view.work) }),
    view.exists && !view.saved ? button("Read the folder's files again", () => ask({ do: "read" }), { "data-do": "read", title: "What stands here is dropped" }) : null,
  );
}
