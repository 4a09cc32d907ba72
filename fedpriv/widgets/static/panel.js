// What all panels share: from the synced traits `view` and `answer` to what is seen, and from clicks to messages.

import { h, patch } from "./dom.js";

/**
 * Make the module that anywidget wants of a function that describes the panel.
 *
 * `draw` gets `view`, `answer` and `charts` (the traits), `ui` (what only this view knows: an open tab, a typed word; never
 * lost while it is shown), `ask(message)` (send a message to the kernel) and `redraw()`, and returns elements.
 */
export function panel(draw) {
  return { render: ({ model, el }) => show(draw, model, el) };
}

function show(draw, model, el) {
  const ui = {};
  let asked = 0;
  let queued = false;
  el.classList.add("fedpriv");
  el.setAttribute("data-lm-suppress-shortcuts", "true"); // else Enter on a button would edit the cell, not press it
  const now = () => {
    queued = false;
    const view = model.get("view");
    const answer = model.get("answer");
    const charts = model.get("charts") ?? {};
    patch(el, [h("div", { class: "fp-panel" }, draw({ view, answer, charts, ui, ask, redraw }), answerLine(answer, asked))]);
  };
  const redraw = () => {
    if (queued) return;
    queued = true;
    requestAnimationFrame(now);
  };
  const ask = (message) => {
    asked += 1;
    model.send(message);
    redraw();
  };
  model.on("change", redraw);
  const clock = setInterval(redraw, 1000); // ages of things
  now();
  return () => {
    model.off("change", redraw);
    clearInterval(clock);
  };
}

/** The line that says what came of the last click; read aloud when it changes. */
function answerLine(answer, asked) {
  const known = answer && answer.number;
  const sign = !known ? "" : answer.good ? "✓" : "✗ Not done:";
  return h(
    "p",
    { class: `fp-answer ${known && !answer.good ? "fp-bad" : ""}`, role: "status", "data-asked": asked },
    known ? [h("strong", {}, sign), " ", answer.text] : "",
  );
}

/** A button. */
export function button(label, onclick, props) {
  return h("button", { type: "button", class: "fp-button", onclick, ...props }, label);
}

/** A bar that says how far something is, with its words beside it. */
export function bar(done, of, label) {
  const share = of ? Math.min(1, done / of) : 0;
  return h(
    "div",
    {
      class: "fp-bar",
      role: "progressbar",
      "aria-label": label,
      "aria-valuemin": 0,
      "aria-valuemax": of,
      "aria-valuenow": done,
    },
    h("div", { class: "fp-bar-done", style: `width:${(share * 100).toFixed(1)}%` }),
  );
}

/** Bytes as a person reads them. */
export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${unit ? count.toFixed(2) : count} ${units[unit]}`;
}

/** Seconds as a person reads them. */
export function duration(seconds) {
  if (seconds < 120) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}
