// What the data owner's console shows beside requests: releases to decide, the privacy budget, the ledger.

import { h } from "./dom.js";
import { short } from "./chart.js";
import { bar, button } from "./panel.js";
import { badge, clock, facts, mark, notice, twice, withReason } from "./owner_parts.js";

export function releases(page) {
  const { view } = page;
  if (!view.releases.length) {
    return h("p", { class: "fp-quiet" }, "No adapter was asked for yet. At the end of a study its researcher asks for it, and it appears here.");
  }
  return view.releases.map((row) => release(page, row));
}

function release(page, row) {
  const spent = page.view.budget?.studies.find((study) => study.study === row.study);
  return h(
    "section",
    { key: row.study, class: "fp-card fp-release", "data-study": row.study, "aria-label": `Adapter of ${row.title}` },
    h(
      "div",
      { class: "fp-head" },
      h("h3", {}, row.title),
      row.handed_over ? mark("fp-good", "✓ handed over") : row.decision === "pending" && row.in_advance ? mark("fp-good", "✓ allowed in advance") : badge(row.decision),
    ),
    facts([
      ["study", row.study.slice(0, 12)],
      ["asked by", row.researcher],
      ["asked", clock(row.asked_s)],
      ["adapter", h("code", {}, row.adapter_sha256.slice(0, 16), "…")],
      [
        "privacy",
        spent
          ? `the study has spent epsilon ${short(spent.epsilon)} of your data`
          : row.private
            ? "differential privacy by the plan; nothing was charged to your data yet"
            : "no differential privacy: what the adapter tells about one patient has no bound",
      ],
      ...(row.reason ? [["your reason", row.reason]] : []),
    ]),
    row.handed_over ? h("p", { class: "fp-quiet" }, "The researcher has it. This cannot be taken back.") : choices(page, row),
  );
}

function choices(page, row) {
  const about = { study: row.study, adapter_sha256: row.adapter_sha256 };
  const give = {
    name: "release",
    about: row.adapter_sha256,
    label: "Hand over the adapter",
    question: "What is handed over cannot be taken back.",
    yes: "Yes, hand it over",
    act: () => page.ask({ do: "release", ...about }),
  };
  const keep = {
    name: "withhold",
    about: row.adapter_sha256,
    label: "Keep the adapter here",
    question: "The researcher gets your reason and not the adapter.",
    yes: "Yes, keep it",
    act: (reason) => page.ask({ do: "withhold", ...about, reason }),
  };
  return [row.decision === "approved" ? null : twice(page, give), row.decision === "withheld" ? null : withReason(page, keep, "Reason to keep it")];
}

export function budget({ view }) {
  const gauge = view.budget;
  if (!gauge) return view.budget_problem ? notice("fp-bad", h("strong", {}, "✗ "), view.budget_problem) : h("p", { class: "fp-quiet" }, "Adding up …");
  const titles = new Map(view.requests.map((row) => [row.study, row.title]));
  return [
    h("h3", {}, `Epsilon spent on ${gauge.dataset}`),
    gauge.budget === null
      ? h("p", {}, h("strong", {}, short(gauge.spent)), " by all studies together. You set no budget: policy > epsilon in domain.yaml sets one.")
      : [
          h("div", { class: "fp-gauge" }, bar(gauge.spent, gauge.budget, `Epsilon spent of ${gauge.budget}`)),
          h("p", { "data-gauge": gauge.spent }, h("strong", {}, short(gauge.spent)), ` of ${short(gauge.budget)} spent; `, h("strong", {}, short(gauge.left)), " left."),
        ],
    gauge.studies.length
      ? h(
          "table",
          { class: "fp-wide" },
          h("caption", { class: "fp-hidden" }, "Epsilon by study"),
          h("thead", {}, h("tr", {}, ["Study", "Protects each", "Rounds", "Epsilon", "Delta"].map((name) => h("th", { scope: "col" }, name)))),
          h(
            "tbody",
            {},
            gauge.studies.map((study) =>
              h(
                "tr",
                { key: study.study },
                h("td", {}, titles.get(study.study) ?? "", h("div", { class: "fp-quiet" }, study.study.slice(0, 12))),
                h("td", {}, study.unit),
                h("td", {}, study.rounds),
                h("td", {}, short(study.epsilon)),
                h("td", {}, `1/${study.patients}`),
              ),
            ),
          ),
        )
      : h("p", { class: "fp-quiet" }, "No round with differential privacy was trained on these data yet."),
    h("p", { class: "fp-quiet" }, "All studies together have spent less than the sum of theirs. Held-out losses that were sent are of other patients and are not in these figures."),
  ];
}

export function ledger({ view, ask }) {
  const { total, newest, verified } = view.ledger;
  return [
    h(
      "div",
      { class: "fp-row" },
      button("Verify the ledger", () => ask({ do: "verify" }), { class: "fp-button fp-main", "data-do": "verify" }),
      h("span", { class: "fp-quiet" }, `${total} entries, each chained to the one before and signed`),
    ),
    verified
      ? notice(
          verified.whole ? "fp-good" : "fp-bad",
          h("strong", { "data-verified": verified.whole ? "whole" : "broken" }, verified.whole ? "✓ " : "✗ "),
          verified.text,
          " Looked at ",
          clock(verified.at_s),
          verified.whole ? [". Keep the digest of the newest, to find an end that is cut off: ", h("code", { class: "fp-break" }, verified.digest)] : null,
        )
      : h("p", { class: "fp-quiet" }, "Not verified since this console was opened."),
    h("ol", { class: "fp-timeline", "aria-label": "The ledger, newest first" }, newest.map(entry)),
    total > newest.length ? h("p", { class: "fp-quiet" }, `and ${total - newest.length} older entries: fedpriv domain ledger export writes all of them`) : null,
  ];
}

function entry(line) {
  const study = line.facts.find(([name]) => name === "study")?.[1].slice(0, 12);
  return h(
    "li",
    { key: line.number, "data-kind": line.kind },
    h("div", { class: "fp-when" }, clock(line.time_s), h("span", { class: "fp-quiet" }, ` No. ${line.number}`)),
    h(
      "div",
      { class: "fp-what" },
      h("details", {}, h("summary", {}, line.words, study ? h("span", { class: "fp-quiet" }, ` · ${study}`) : null), facts([...line.facts, ["digest", line.digest]])),
    ),
  );
}
