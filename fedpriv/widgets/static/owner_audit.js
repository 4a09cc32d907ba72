// What others could tell from updates of this domain's own notes under a request's plan, by attack.

import { h } from "./dom.js";
import { clock, notice, starter, trialOf } from "./owner_parts.js";

const TONES = { leak: ["fp-bad", "▲ "], calm: ["fp-good", "✓ "], grey: ["fp-warn", "! "] };

export function audit(page) {
  const trial = trialOf(page, "audit");
  const found = page.view.audit;
  return [
    h(
      "p",
      {},
      "An audit takes passages of your own notes, makes updates of them as the plan says, and attacks what each party would hold. " +
        "It runs on this machine for some minutes and sends nothing.",
    ),
    starter(page, trial, { kind: "audit", label: found ? "Measure again" : "Measure on my own notes", first: "Starting …" }),
    found ? shown(found) : trial ? null : h("p", { class: "fp-quiet" }, "Not measured yet."),
  ];
}

function shown(found) {
  const [tone, sign] = TONES[found.tone];
  return [
    notice(tone, h("strong", { "data-audit": found.tone }, sign), found.headline),
    found.not_measured.map((text) => notice("fp-warn", h("strong", {}, "! Not measured: "), text)),
    h("h4", {}, "What to do"),
    found.advice.length ? h("ul", {}, found.advice.map((text) => h("li", {}, text))) : h("p", {}, "No advice follows from these numbers."),
    found.tables.map(table),
    h("h4", {}, "How it was measured"),
    h("p", { class: "fp-quiet" }, "On ", clock(found.made_s), ". ", found.notes.join(" ")),
    h("p", {}, "All of it, with pictures, is on a page that only you can read: ", h("code", {}, found.page)),
  ];
}

function table({ asks, rows }) {
  const reasons = [...new Set(rows.map((row) => row.why_not).filter(Boolean))];
  return [h("h4", {}, asks), reasons.map((why) => h("p", {}, `Not measured: ${why}.`)), numbers(asks, rows)];
}

function numbers(asks, rows) {
  return h(
    "table",
    { class: "fp-wide" },
    h("caption", { class: "fp-hidden" }, asks),
    h("thead", {}, h("tr", {}, ["Who looks", "Found", "95 % interval", "That is"].map((name) => h("th", { scope: "col" }, name)))),
    h(
      "tbody",
      {},
      rows.map((row) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, row.who),
          h("td", {}, row.found),
          h("td", {}, row.interval),
          h("td", { class: row.leaks ? "fp-bad" : "" }, row.verdict),
        ),
      ),
    ),
  );
}
