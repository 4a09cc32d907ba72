// The researcher's panel: the domains, the steering, the rounds as charts, and what happened.

import { h } from "./dom.js";
import { panel, button, bar, bytes, duration } from "./panel.js";
import { lines, bars } from "./chart.js";

const SIGNS = {
  draft: "✎", submitted: "✉", starting: "…", "waiting for data owners": "…", preparing: "▶", running: "▶",
  paused: "‖", stopped: "■", interrupted: "✗", finished: "✓", releasing: "…", released: "✓",
};

export default panel(({ view, charts, ui, ask, redraw }) => {
  if (!view.phase) return h("p", {}, "Reading the study…");
  const now = view.now_s + (performance.now() - ui.at) / 1000;
  if (ui.seen !== view.now_s) [ui.seen, ui.at] = [view.now_s, performance.now()];
  return h(
    "section",
    { "aria-label": `Study ${view.name}`, "data-phase": view.phase },
    head(view),
    view.problem ? h("p", { class: "fp-notice fp-bad", role: "alert" }, h("strong", {}, "✗ "), view.problem) : null,
    view.warning && view.warning !== view.problem ? h("p", { class: "fp-notice fp-warn" }, h("strong", {}, "! "), view.warning) : null,
    controls(view, ui, ask, redraw),
    h("h3", {}, "Domains"),
    h("div", { class: "fp-cards" }, view.domains.map((domain) => card(view, domain, ui, ask, redraw, Number.isNaN(now) ? view.now_s : now))),
    weights(view, ui, ask, redraw),
    view.draft ? choices(view, ui, ask, redraw) : null,
    view.summed ? figures(view, charts) : null,
    log(view),
  );
});

function head(view) {
  return h(
    "div",
    {},
    h(
      "div",
      { class: "fp-head" },
      h("h2", {}, view.title || view.name, h("span", { class: "fp-quiet" }, ` ${view.name}`)),
      h("span", { class: "fp-badge fp-phase" }, `${SIGNS[view.phase] ?? "•"} ${view.phase}`),
    ),
    h(
      "div",
      { class: "fp-row" },
      h("span", { class: "fp-rounds" }, `${view.summed} of ${view.rounds} rounds summed`),
      h("div", { style: "flex:1;min-width:120px" }, bar(view.summed, view.rounds, "rounds summed")),
      view.result
        ? h("span", { class: "fp-result" }, `held-out loss ${view.result.before.toFixed(4)} before, `, h("b", {}, view.result.after.toFixed(4)), " after")
        : null,
    ),
    h("p", { class: "fp-quiet fp-next" }, view.next),
    view.released ? h("p", { class: "fp-released" }, "The adapter is in ", h("code", {}, view.released)) : null,
  );
}

function controls(view, ui, ask, redraw) {
  const { can } = view;
  const started = view.summed || ["stopped", "interrupted", "paused"].includes(view.phase);
  const go = started ? "Go on" : "Start";
  return h(
    "div",
    { class: "fp-row", role: "group", "aria-label": "Steering" },
    can.submit ? button("Submit to the data owners", () => ask({ do: "submit" }), { class: "fp-button fp-main", "data-do": "submit" }) : null,
    button(`▶ ${go}`, () => ask({ do: "start" }), { disabled: !can.start, "data-do": "start", class: `fp-button ${can.start ? "fp-main" : ""}` }),
    button("‖ Pause", () => ask({ do: "pause" }), { disabled: !can.pause, "data-do": "pause", title: "Begin no further round" }),
    button("Step", () => ask({ do: "step" }), { disabled: !can.step, "data-do": "step", title: "One more round, then pause" }),
    button("■ Stop", () => ask({ do: "stop" }), { disabled: !can.stop, "data-do": "stop", title: "End the run; what is done is kept" }),
    can.skip ? button("Skip this round", () => ask({ do: "skip" }), { "data-do": "skip", title: "Leave the round without a sum" }) : null,
    can.release || ui.releasing ? release(view, ui, ask, redraw) : null,
  );
}

function release(view, ui, ask, redraw) {
  ui.folder ??= `adapter-${view.name}`;
  return h(
    "span",
    { class: "fp-row", style: "margin:0" },
    h("label", {}, "into ", h("input", { class: "fp-folder", value: ui.folder, oninput: (event) => { ui.folder = event.target.value; redraw(); } })),
    button("Ask for the adapter", () => ask({ do: "release", folder: ui.folder }), { class: "fp-button fp-main", "data-do": "release", disabled: !view.can.release }),
  );
}

function card(view, domain, ui, ask, redraw, now) {
  const silent = domain.seen_s && view.running ? now - domain.seen_s : 0;
  const off = domain.excluded !== null;
  const asking = ui.excluding === domain.email;
  return h(
    "article",
    { key: domain.email, class: `fp-card ${off ? "fp-off" : ""}`, "data-domain": domain.email, "aria-label": `Domain ${domain.name}` },
    h(
      "div",
      { class: "fp-head" },
      h("h4", { style: "margin:0", title: domain.email }, domain.name),
      h("span", { class: `fp-badge ${verdict(domain)[1]}` }, verdict(domain)[0]),
    ),
    h("p", { class: "fp-doing" }, domain.doing, view.running && domain.since_s ? h("span", { class: "fp-quiet" }, ` for ${duration(Math.max(0, now - domain.since_s))}`) : null),
    domain.steps ? [bar(domain.step, domain.steps, `${domain.name}: steps`), h("span", { class: "fp-quiet" }, `step ${domain.step} of ${domain.steps}`)] : null,
    silent > view.silent_s && !off
      ? h("p", { class: "fp-warn" }, h("strong", {}, "! "), `Not heard of for ${duration(silent)}. Ask its data owner, or exclude it: the others go on.`)
      : null,
    domain.missed ? h("p", { class: "fp-warn" }, `! Missed round ${domain.missed}; it catches up when it is back.`) : null,
    off ? h("p", { class: "fp-warn" }, `Excluded: ${domain.excluded}`) : null,
    domain.reason && domain.decision !== "approved" ? h("p", { class: "fp-bad" }, `✗ ${domain.decision}: ${domain.reason}. Ask the data owner what would have to change, or exclude the domain.`) : null,
    h(
      "dl",
      { class: "fp-facts" },
      fact("held-out loss", domain.heldout === null ? null : domain.heldout.toFixed(4)),
      fact("weight", domain.share === null ? null : `${(domain.share * 100).toFixed(0)} %`),
      fact("link", domain.link),
      view.running && domain.seen_s ? fact("heard of", `${duration(Math.max(0, now - domain.seen_s))} ago`) : null,
      fact("last update", domain.bytes === null ? null : bytes(domain.bytes)),
      domain.epsilon ? fact("epsilon left", epsilonLeft(domain.epsilon)) : null,
    ),
    domain.limits.length
      ? h("details", {}, h("summary", {}, "Approved limits"), h("ul", {}, domain.limits.map((limit) => h("li", { key: limit }, limit))))
      : null,
    view.can.exclude ? excluding(domain, off, asking, ui, ask, redraw) : null,
  );
}

function excluding(domain, off, asking, ui, ask, redraw) {
  if (off) return button("Re-admit", () => ask({ do: "readmit", domain: domain.email }), { class: "fp-button fp-small", "data-do": "readmit", "aria-label": `Re-admit ${domain.name}` });
  if (!asking) return button("Exclude…", () => { ui.excluding = domain.email; ui.reason = ""; redraw(); }, { class: "fp-button fp-small", "data-do": "exclude-ask", "aria-label": `Exclude ${domain.name}` });
  const done = () => { ui.excluding = null; redraw(); };
  return h(
    "div",
    { class: "fp-field" },
    h("label", {}, "Why, for the others to read ", h("input", { class: "fp-reason", maxlength: 500, value: ui.reason, oninput: (event) => { ui.reason = event.target.value; } })),
    h(
      "div",
      { class: "fp-row", style: "margin:4px 0" },
      button("Exclude", () => { ask({ do: "exclude", domain: domain.email, reason: ui.reason }); done(); }, { class: "fp-button fp-small fp-danger", "data-do": "exclude" }),
      button("Keep", done, { class: "fp-button fp-small" }),
    ),
  );
}

function verdict(domain) {
  if (domain.excluded !== null) return ["– excluded", "fp-warn"];
  if (domain.decision === "approved") return ["✓ approved", "fp-good"];
  if (domain.decision === "rejected" || domain.decision === "revoked") return [`✗ ${domain.decision}`, "fp-bad"];
  return ["… undecided", "fp-quiet"];
}

function epsilonLeft({ of, spent }) {
  if (spent === null) return `of ${of}; not known yet`;
  return `about ${Math.max(0, of - spent).toFixed(2)} of ${of}`;
}

function fact(name, value) {
  return value === null || value === undefined || value === "" ? null : [h("dt", {}, name), h("dd", {}, value)];
}

function weights(view, ui, ask, redraw) {
  const { rule, has_alpha: hasAlpha, alpha, preview } = view.weights;
  if (!hasAlpha) return h("p", { class: "fp-quiet" }, `Updates are weighed ${rule}.`);
  ui.alpha ??= alpha;
  if (ui.known !== alpha) [ui.known, ui.alpha] = [alpha, alpha];
  const at = Math.min(20, Math.max(0, Math.round(ui.alpha * 10)));
  const change = view.draft?.editable ? { do: "plan", choice: "alpha", value: ui.alpha } : { do: "adjust", alpha: ui.alpha };
  return h(
    "div",
    { class: "fp-weights" },
    h("h3", {}, "Weights"),
    h("p", { class: "fp-quiet" }, `Updates are weighed ${rule}.`),
    h(
      "div",
      { class: "fp-row" },
      h("label", {}, "alpha ", h("input", { class: "fp-alpha", type: "range", min: 0, max: 2, step: 0.1, value: ui.alpha, oninput: (event) => { ui.alpha = Number(event.target.value); redraw(); } })),
      h("output", { class: "fp-number", style: "min-width:3ch" }, ui.alpha.toFixed(1)),
      button("Use this alpha", () => ask(change), { "data-do": "alpha", disabled: Math.abs(ui.alpha - alpha) < 1e-9 }),
      h("span", { class: "fp-quiet" }, `in use: ${alpha.toFixed(1)}`),
    ),
    preview.length
      ? bars({ title: `Weights with alpha ${ui.alpha.toFixed(1)}`, unit: "from what was measured last", parts: ["share"], rows: preview.map(({ name, shares }) => ({ name, values: [shares[at]] })), format: (share) => `${(share * 100).toFixed(1)} %` })
      : h("p", { class: "fp-quiet" }, "What each domain would count is shown here once the first losses and links are measured."),
  );
}

function choices(view, ui, ask, redraw) {
  const draft = view.draft;
  if (!draft.editable) {
    return h(
      "details",
      { class: "fp-choices" },
      h("summary", {}, "What was submitted"),
      h("dl", { class: "fp-facts" }, fact("rounds", `${draft.rounds} of ${draft.steps} steps`), fact("weights", draft.aggregation), fact("schedule", draft.schedule), fact("protection", draft.protection)),
      h("p", { class: "fp-quiet" }, "Data owners approved exactly this: to change it, make a new study."),
      sizeTable(draft),
    );
  }
  const set = (choice) => (event) => ask({ do: "plan", choice, value: event.target.type === "number" ? Number(event.target.value) : event.target.value });
  return h(
    "div",
    { class: "fp-choices" },
    h("h3", {}, "The study"),
    h(
      "div",
      { class: "fp-fields" },
      select("weights", "Weights", draft.weights, draft.weights_offered.map((rule) => [rule, rule]), set("weights")),
      select("mode", "Rounds", draft.mode, [["synchronous", "synchronous"], ["buffered", "asynchronous"]], set("mode")),
      select("level", "Protection", draft.level, draft.levels_offered.map((level) => [level, level]), set("level")),
      draft.has_bits ? select("bits", "Bits of a value", String(draft.bits), draft.bits_offered.map((bits) => [String(bits), String(bits)]), (event) => ask({ do: "plan", choice: "bits", value: Number(event.target.value) })) : null,
      number("rounds", "Number of rounds", draft.rounds, 1000, set("rounds")),
      number("steps", "Steps a round", draft.steps, 100000, set("steps")),
    ),
    h(
      "dl",
      { class: "fp-facts" },
      fact("weights", draft.aggregation),
      fact("rounds", draft.schedule),
      fact("protection", draft.protection),
    ),
    sizeTable(draft),
  );
}

function select(name, label, value, options, onchange) {
  return h(
    "label",
    { class: "fp-field" },
    label,
    h("select", { "data-choice": name, value, onchange, style: "max-width:100%" }, options.map(([key, words]) => h("option", { key, value: key }, words))),
  );
}

function number(name, label, value, max, onchange) {
  return h("label", { class: "fp-field" }, label, h("input", { type: "number", "data-choice": name, min: 1, max, step: 1, value, onchange }));
}

function sizeTable(draft) {
  if (!draft.sizes) return h("p", { class: "fp-quiet" }, "What an update weighs is shown here once the base model is on this machine (fedpriv model list).");
  const { of, fp32, parameters } = draft.sizes;
  const levels = [...new Set(of.map(([level]) => level))];
  const widths = [...new Set(of.map(([, bits]) => bits).filter(Boolean))];
  const size = (level, bits) => of.find((entry) => entry[0] === level && (entry[1] === bits || entry[1] === 0))?.[2];
  return h(
    "details",
    { class: "fp-sizes", open: draft.editable },
    h("summary", {}, "Bytes of one update, as the protection layer will lay it out"),
    h("p", { class: "fp-quiet" }, `${parameters.toLocaleString("en")} parameters; plain fp32 takes ${bytes(fp32)}.`),
    h(
      "table",
      { class: "fp-numbers-table" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "protection"), widths.map((bits) => h("th", { scope: "col", class: "fp-number" }, `${bits} bits`)))),
      h(
        "tbody",
        {},
        levels.map((level) =>
          h(
            "tr",
            { key: level },
            h("th", { scope: "row" }, level),
            widths.map((bits) => {
              const here = size(level, bits);
              const chosen = level === draft.level && (bits === draft.bits || !draft.has_bits);
              if (here === undefined) return h("td", { class: "fp-number fp-quiet" }, "not possible");
              return h("td", { class: "fp-number" }, chosen ? h("strong", {}, "→ ") : null, bytes(here), h("span", { class: "fp-quiet" }, ` ${(here / fp32).toFixed(2)}×`));
            }),
          ),
        ),
      ),
    ),
  );
}

function figures(view, charts) {
  const percent = (series) => series.map((line) => ({ ...line, points: line.points.map(([x, y]) => [x, y * 100]) }));
  return h(
    "div",
    {},
    h("h3", {}, "Rounds"),
    h(
      "div",
      { class: "fp-figures" },
      lines({ title: "Held-out loss", unit: "nats a token, at each round's start", xLabel: "round", series: charts.loss ?? [] }),
      lines({ title: "Weights", unit: "% of the sum", xLabel: "round", series: percent(charts.weights ?? []), zero: true }),
      bars({ title: "Bytes", unit: "last round", parts: ["bytes"], rows: (charts.bytes ?? []).map(({ name, value }) => ({ name, values: [value] })), format: bytes }),
      bars({ title: "Where the time goes", unit: "seconds, mean over domains", parts: charts.seconds?.parts ?? [], rows: charts.seconds?.rows ?? [], format: (value) => `${value.toFixed(2)} s` }),
      charts.epsilon?.length ? lines({ title: "Epsilon", unit: "spent, about", xLabel: "round", series: charts.epsilon, zero: true }) : null,
    ),
  );
}

function log(view) {
  if (!view.log.length) return null;
  return h(
    "div",
    {},
    h("h3", {}, "What happened"),
    h(
      "div",
      { class: "fp-scroll", tabindex: 0, role: "log", "aria-label": "What happened, newest first" },
      h(
        "ol",
        { class: "fp-log" },
        view.log.map((line) => h("li", {}, h("time", {}, new Date(line.time_s * 1000).toLocaleTimeString("en-GB")), line.grave ? h("strong", { class: "fp-warn" }, "! ") : null, line.text)),
      ),
    ),
  );
}
