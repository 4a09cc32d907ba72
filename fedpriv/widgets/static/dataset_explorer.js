// What can be known of a cohort's data without seeing any: mock data, which are made up, and what domains said.

import { h } from "./dom.js";
import { panel, button } from "./panel.js";
import { bars } from "./chart.js";

export default panel(({ view, ui, ask, redraw }) => {
  if (!view.dataset) return h("p", {}, "Reading…");
  return h(
    "section",
    { "aria-label": `Data of ${view.dataset}`, "data-looking": String(view.looking) },
    h(
      "div",
      { class: "fp-head" },
      h("h2", {}, "Data of the cohort", h("span", { class: "fp-quiet" }, ` ${view.dataset}`)),
      h("span", { class: "fp-badge fp-warn" }, "✎ made up"),
    ),
    h("p", { class: "fp-quiet" }, view.made_up),
    h("div", { class: "fp-row" }, button(view.looking ? "… being fetched" : "Fetch again", () => ask({ do: "look" }), { "data-do": "look", disabled: view.looking })),
    h("div", { class: "fp-cards" }, view.domains.map(card)),
    statements(view),
    distributions(view),
    schema(view, ui, redraw),
    sample(view, ask),
  );
});

function card(domain) {
  return h(
    "article",
    { key: domain.email, class: "fp-card", "data-domain": domain.email, "aria-label": `Domain ${domain.name}` },
    h("div", { class: "fp-head" }, h("h3", { style: "margin:0" }, domain.name), h("span", { class: `fp-badge ${domain.mock ? "fp-good" : "fp-quiet"}` }, domain.mock ? "✓ mock data" : "… no mock data")),
    h("p", { class: "fp-quiet fp-break" }, domain.email),
    h("p", { class: "fp-mock" }, domain.mock ?? domain.words),
    domain.told.length
      ? [
          h("h4", {}, "Said of its shard, signed"),
          h("dl", { class: "fp-facts" }, domain.told.map(([name, count]) => [h("dt", {}, name), h("dd", {}, count)])),
        ]
      : h("p", { class: "fp-quiet" }, "It says of its shard what it has once a study is prepared."),
  );
}

function statements(view) {
  const told = view.domains.filter((domain) => domain.told.length).length;
  if (told < 2) return null;
  return h(
    "div",
    { class: "fp-differences" },
    h("h3", {}, "Do the shards agree?"),
    view.differences.length
      ? h("ul", { class: "fp-warn" }, view.differences.map((words) => h("li", { key: words }, `! ${words}`)))
      : h("p", { class: "fp-good" }, `✓ Yes: all ${told} that said so were harmonised by the same rules and have what the task reads.`),
  );
}

function distributions(view) {
  if (!view.charts.length && !view.answers.rows.length) return null;
  return h(
    "div",
    {},
    h("h3", {}, "What the mock data look like (made up)"),
    view.alike ? h("p", { class: "fp-quiet fp-alike" }, "These domains show the same mock data: they tell of the schema, and nothing of how the domains differ.") : null,
    h("div", { class: "fp-figures" }, view.charts.map((chart) => bars({ title: chart.title, unit: chart.parts.length === 1 ? `made-up counts; all ${chart.parts[0]}` : "made-up counts", parts: chart.parts, rows: chart.rows }))),
    view.answers.rows.length
      ? h(
          "div",
          { class: "fp-scroll", tabindex: 0, role: "region", "aria-label": "Answers in the mock data" },
          h(
            "table",
            {},
            h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "answered yes (made up)"), view.answers.domains.map((name) => h("th", { key: name, scope: "col", class: "fp-number" }, name)))),
            h("tbody", {}, view.answers.rows.map(([question, cells]) => h("tr", { key: question }, h("th", { scope: "row" }, question), cells.map((cell) => h("td", { class: "fp-number" }, cell))))),
          ),
        )
      : null,
  );
}

function schema(view, ui, redraw) {
  if (!view.tables.length) return null;
  const table = view.tables.find((one) => one.name === ui.table) ?? view.tables[0];
  const said = table.columns.some((column) => column.cells.some(([, words]) => words));
  return h(
    "div",
    { class: "fp-schema" },
    h("h3", {}, "Tables and columns"),
    h("label", {}, "table ", h("select", { class: "fp-table", value: table.name, onchange: (event) => { ui.table = event.target.value; redraw(); } }, view.tables.map((one) => h("option", { key: one.name, value: one.name }, one.name)))),
    h("p", { class: "fp-quiet" }, `Made-up rows: ${table.rows}. A share is of made-up rows that fill the column${said ? "; below it is what the domain said of its own column" : ""}.`),
    h(
      "div",
      { class: "fp-scroll", tabindex: 0, role: "region", "aria-label": `Columns of ${table.name}` },
      h(
        "table",
        { style: "width:100%;margin:0" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "column"), h("th", { scope: "col" }, "type"), table.domains.map((name) => h("th", { key: name, scope: "col" }, name)))),
        h(
          "tbody",
          {},
          table.columns.map((column) =>
            h(
              "tr",
              { key: `${table.name} ${column.name}` },
              h("th", { scope: "row" }, column.name, column.needed ? h("span", { class: "fp-good" }, " ● read by the task") : null),
              h("td", { class: "fp-quiet" }, column.type),
              column.cells.map(([share, words]) => h("td", {}, share, words ? h("div", { class: column.needed && words === "mostly empty" ? "fp-warn" : "fp-quiet" }, column.needed && words === "mostly empty" ? `! ${words}` : words) : null)),
            ),
          ),
        ),
      ),
    ),
  );
}

function sample(view, ask) {
  const shown = view.sample;
  if (!shown) return null;
  const go = (number) => ask({ do: "text", domain: shown.domain, number });
  return h(
    "div",
    { class: "fp-sample" },
    h("h3", {}, "Sample texts (made up)"),
    h(
      "div",
      { class: "fp-row" },
      h(
        "label",
        {},
        "of ",
        h(
          "select",
          { class: "fp-whose", value: shown.domain, onchange: (event) => ask({ do: "text", domain: event.target.value, number: 0 }) },
          view.domains.filter((domain) => domain.mock).map((domain) => h("option", { key: domain.email, value: domain.email }, domain.name)),
        ),
      ),
      button("◀ Before", () => go(shown.number - 1), { "data-do": "before", disabled: shown.number === 0 }),
      h("span", { class: "fp-number fp-place" }, `${shown.number + 1} of ${shown.of}`),
      button("Next ▶", () => go(shown.number + 1), { "data-do": "next", disabled: shown.number + 1 >= shown.of }),
    ),
    h("div", { class: "fp-scroll", tabindex: 0, role: "region", "aria-label": "Sample text" }, h("pre", { class: "fp-text", style: "margin:0;padding:6px 10px;white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere" }, shown.lines.join("\n"))),
    shown.cut ? h("p", { class: "fp-quiet" }, "The text goes on; only its beginning is shown.") : null,
  );
}
