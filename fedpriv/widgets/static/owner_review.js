// One code request as its data owner reads it, and decides on it.

import { h } from "./dom.js";
import { button } from "./panel.js";
import { audit } from "./owner_audit.js";
import { decide } from "./owner_decide.js";
import { badge, clock, facts, mark, notice, pager, pane, starter, tabs, trialOf } from "./owner_parts.js";

const SEVERITIES = {
  danger: ["fp-bad", "▲ danger"],
  warning: ["fp-warn", "! warning"],
  information: ["fp-quiet", "i information"],
};

export function review(page) {
  const { view, ui, ask } = page;
  const back = h("div", { class: "fp-row" }, button("← All requests", () => ask({ do: "open", study: "" }), { "data-do": "back" }));
  const seen = view.review;
  if (!seen) {
    if (!view.review_problem) return [back, h("p", { class: "fp-quiet" }, "Reading the request …")];
    return [back, notice("fp-bad", h("strong", {}, "✗ "), view.review_problem), decide(page)];
  }
  const parts = {
    summary: ["Summary", summary],
    limits: ["Your limits", checks],
    findings: [`Findings (${seen.findings.length + seen.more_findings})`, findings],
    files: [`Files (${seen.files.length})`, files],
    changes: ["Changes", changes],
    dryrun: ["Dry run", dryRun],
    audit: ["What would leak", audit],
    decide: ["Decide", decide],
  };
  ui.part ??= "summary";
  ui.read ??= {};
  const read = (ui.read[seen.study] ??= new Set());
  read.add(ui.part);
  const choose = (id) => {
    ui.part = id;
    ui.sure = "";
    page.redraw();
  };
  const list = Object.entries(parts).map(([id, [label]]) => [id, label, id === "decide" || read.has(id) ? "" : "new"]);
  const unread = list.filter(([, , news]) => news);
  return [
    back,
    headline(seen),
    tabs("Parts of the request", list, ui.part, choose),
    pane(parts[ui.part][0], parts[ui.part][1]({ ...page, unread, choose })),
  ];
}

function headline(seen) {
  return [
    h("div", { class: "fp-head" }, h("h3", { class: "fp-title" }, seen.title), badge(seen.decision, seen.ends_s)),
    h("p", { class: "fp-quiet" }, "From ", h("strong", {}, seen.researcher), ", received ", clock(seen.received_s), ". Request ", h("code", {}, seen.study.slice(0, 12)), "."),
    h(
      "p",
      {},
      seen.within_limits ? mark("fp-good", "✓ within your limits") : mark("fp-bad", "✗ OUTSIDE your limits"),
      " ",
      seen.grave ? mark("fp-bad", `▲ ${seen.grave} grave finding${seen.grave > 1 ? "s" : ""} in the code`) : mark("fp-good", "✓ no grave finding in the code"),
      " ",
      seen.is_stock ? mark("fp-good", "✓ the stock recipe, to the byte") : mark("fp-warn", "! the researcher's own code"),
      " ",
      tried(seen.dry_run),
    ),
  ];
}

function tried(run) {
  if (!run) return mark("fp-quiet", "○ not tried yet");
  if (run.attempts.length) return mark("fp-bad", "▲ it tried what training never needs");
  return run.outcome === "passed" ? mark("fp-good", "✓ the dry run passed") : mark("fp-bad", `✗ the dry run: ${run.outcome}`);
}

function summary({ view }) {
  return h(
    "div",
    { class: "fp-points" },
    view.review.summary.map((group) =>
      h(
        "section",
        { class: "fp-card", "data-group": group.title },
        h("h4", {}, group.title),
        h(
          "dl",
          {},
          group.points.map((point) => [
            h("dt", {}, point.label),
            point.lines.map((line) => h("dd", {}, line)),
          ]),
        ),
      ),
    ),
  );
}

function checks({ view }) {
  return [
    h("p", { class: "fp-quiet" }, "What domain.yaml allows. A request that breaks one of these cannot be approved before you change that file."),
    h(
      "ul",
      { class: "fp-checks" },
      view.review.checks.map((check) =>
        h("li", {}, check.passed ? h("strong", { class: "fp-good" }, "✓ yes: ") : h("strong", { class: "fp-bad" }, "✗ NO: "), check.sentence),
      ),
    ),
  ];
}

function findings(page) {
  const { review: seen } = page.view;
  const foot = h("p", { class: "fp-quiet" }, `Found by ${seen.analysers}. It helps you to read and proves nothing: the sandbox and the gatekeeper are the walls.`);
  if (!seen.findings.length) {
    return [h("p", {}, h("strong", { class: "fp-good" }, "✓ Nothing found. "), `Looked for: ${seen.looked_for}.`), foot];
  }
  return [
    h(
      "ul",
      { class: "fp-findings" },
      seen.findings.map((finding) =>
        h(
          "li",
          { "data-severity": finding.severity },
          h(
            "div",
            { class: "fp-head" },
            mark(...SEVERITIES[finding.severity]),
            button(`Show ${finding.file}${finding.line ? `, line ${finding.line}` : ""}`, (event) => jump(page, finding, event), {
              class: "fp-button fp-small",
              "data-do": "jump",
            }),
          ),
          h("p", {}, finding.sentence),
          finding.code ? h("pre", { class: "fp-quote" }, finding.code) : null,
          finding.analyser === "fedpriv" ? null : h("p", { class: "fp-quiet" }, `found by ${finding.analyser}`),
        ),
      ),
    ),
    seen.more_findings ? h("p", { class: "fp-bad" }, `▲ and ${seen.more_findings} more findings, which are not shown.`) : null,
    foot,
  ];
}

/** Go to the line of a finding: the page with it comes from the kernel, and is scrolled to when it is there. */
function jump({ ui, ask, choose }, finding, event) {
  ui.scroll = { file: finding.file, line: finding.line, root: event.currentTarget.closest(".fp-panel") };
  ask({ do: "read", file: finding.file, line: finding.line });
  choose("files");
}

function scrollTo({ ui }, file) {
  const wanted = ui.scroll;
  if (!wanted || wanted.file !== file.name || wanted.line !== file.line) return;
  ui.scroll = null;
  requestAnimationFrame(() => {
    const row = wanted.root.querySelector(".fp-found");
    const box = row?.closest(".fp-source");
    if (box) box.scrollTop = row.offsetTop - box.clientHeight / 3;
    box?.focus({ preventScroll: true });
    box?.scrollIntoView({ block: "nearest" });
  });
}

function files(page) {
  const { view, ask } = page;
  const { files: all, file } = view.review;
  scrollTo(page, file);
  return [
    h(
      "div",
      { class: "fp-row", role: "group", "aria-label": "Files of the request" },
      all.map((row) =>
        button([row.name, row.findings ? h("span", { class: "fp-bad" }, ` ▲ ${row.findings}`) : null], () => ask({ do: "read", file: row.name }), {
          key: row.name,
          class: `fp-button fp-small ${row.name === file.name ? "fp-main" : ""}`,
          "aria-pressed": row.name === file.name ? "true" : "false",
          "data-file": row.name,
        }),
      ),
    ),
    h("p", { class: "fp-quiet" }, `${file.name}: ${file.total} line${file.total === 1 ? "" : "s"}`, all.find((row) => row.name === file.name)?.note ? `; ${all.find((row) => row.name === file.name).note}` : ""),
    pager(file, (number) => ask({ do: "read", file: file.name, page: number })),
    h(
      "div",
      { key: `${file.name} ${file.page}`, class: "fp-source", tabindex: "0", role: "region", "aria-label": `Text of ${file.name}` },
      h("table", {}, h("caption", { class: "fp-hidden" }, `Lines of ${file.name}`), h("tbody", {}, file.lines.map((line) => sourceLine(line, file.line)))),
    ),
  ];
}

function sourceLine([number, severity, spans], found) {
  const [tone, words] = SEVERITIES[severity] ?? ["", ""];
  return h(
    "tr",
    { class: `${number === found ? "fp-found" : ""} ${severity ? `fp-has-${severity}` : ""}`, "data-line": number },
    h("td", { class: "fp-line-number" }, number),
    h("td", { class: `fp-line-mark ${tone}`, title: words || null }, words.slice(0, 1)),
    h("td", { class: "fp-line" }, spans.map(([kind, text]) => (kind ? h("span", { class: `fp-code-${kind}` }, text) : text))),
  );
}

function changes({ view, ask }) {
  const { comparisons, change } = view.review;
  return comparisons.map((group) => [
    h("h4", {}, group.title),
    h("p", {}, group.words),
    group.plan.length ? planChanges(group.plan) : null,
    h(
      "div",
      { class: "fp-row", role: "group", "aria-label": group.title },
      group.files.map((file) =>
        button(`${file.name}: ${file.kind}${file.note ? ` (${file.note})` : ""}`, () => ask({ do: "compare", change: file.id }), {
          key: file.id,
          class: `fp-button fp-small ${change?.id === file.id ? "fp-main" : ""}`,
          disabled: file.kind === "the same",
          "aria-pressed": change?.id === file.id ? "true" : "false",
          "data-change": file.id,
        }),
      ),
    ),
    change && group.files.some((file) => file.id === change.id) ? shownChange(change, ask) : null,
  ]);
}

function planChanges(rows) {
  return h(
    "table",
    { class: "fp-wide" },
    h("caption", { class: "fp-hidden" }, "Settings of the plan that changed"),
    h("thead", {}, h("tr", {}, ["Setting", "Before", "Now"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, rows.map(([setting, before, now]) => h("tr", {}, h("th", { scope: "row" }, setting), h("td", { class: "fp-removed" }, before), h("td", { class: "fp-added" }, now)))),
  );
}

const SIGNS = { "+": ["fp-added", "+"], "-": ["fp-removed", "−"], "@": ["fp-hunk", "…"] };

function shownChange(change, ask) {
  return [
    pager(change, (number) => ask({ do: "compare", change: change.id, page: number })),
    h(
      "div",
      { key: `${change.id} ${change.page}`, class: "fp-source", tabindex: "0", role: "region", "aria-label": `Changes of ${change.id}` },
      h(
        "table",
        {},
        h("caption", { class: "fp-hidden" }, "Lines with + are new, lines with − are gone"),
        h(
          "tbody",
          {},
          change.lines.map((line) => {
            const [tone, sign] = SIGNS[line[0]] ?? ["", ""];
            const text = line[0] === "@" ? line : line.slice(1);
            return h("tr", { class: tone }, h("td", { class: "fp-line-mark" }, sign), h("td", { class: "fp-line" }, text));
          }),
        ),
      ),
    ),
  ];
}

function dryRun(page) {
  const { review: seen } = page.view;
  const trial = trialOf(page, "try");
  return [
    h("p", {}, "A dry run takes the code for two steps on made-up patients, inside the sandbox, as a round would. Nothing of it leaves."),
    starter(page, trial, { kind: "try", label: seen.dry_run ? "Try it again" : "Try it on made-up patients", first: "Starting the sandbox …" }),
    seen.dry_run ? shown(seen.dry_run) : trial ? null : h("p", { class: "fp-quiet" }, "Not tried yet."),
  ];
}

function shown(run) {
  const passed = run.outcome === "passed";
  return [
    notice(passed ? "fp-good" : "fp-bad", h("strong", { "data-outcome": run.outcome }, passed ? "✓ " : "✗ "), run.text),
    run.attempts.length ? notice("fp-bad", h("strong", {}, "▲ It tried what training never needs: "), run.attempts.join("; ")) : null,
    run.walled ? null : notice("fp-bad", h("strong", {}, "▲ There was no sandbox around it.")),
    facts([["tried", clock(run.tried_s)], ...run.facts]),
    run.leaving.length ? [h("h4", {}, "Numbers that would leave"), facts(run.leaving)] : null,
    run.log.length
      ? [h("h4", {}, "The end of its log (only you see it)"), h("pre", { class: "fp-source fp-quote", tabindex: "0", role: "region", "aria-label": "Log of the dry run" }, run.log.join("\n"))]
      : null,
    h("p", { class: "fp-quiet" }, "On made-up patients code can behave differently than on real ones: the walls are the same."),
  ];
}
