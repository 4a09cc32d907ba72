// The data owner's console: requests, releases, the privacy budget, the ledger.

import { h } from "./dom.js";
import { panel, button } from "./panel.js";
import { budget, ledger, releases } from "./owner_books.js";
import { badge, clock, mark, notice, pane, tabs, twice } from "./owner_parts.js";
import { review } from "./owner_review.js";

const MOST_WAITS = 6;

export default panel(draw);

function draw(page) {
  const { view, ui, redraw } = page;
  if (!view.name) return h("p", { class: view.problem ? "fp-bad" : "fp-quiet" }, view.problem || "Looking at the domain …");
  const open = view.releases.filter((row) => row.to_decide).length;
  const asked = view.requests.filter((row) => row.decision === "pending").length;
  const list = [
    ["requests", "Requests", asked ? `${asked} to decide` : ""],
    ["releases", "Releases", open ? `${open} to decide` : ""],
    ["budget", "Privacy budget", ""],
    ["ledger", "Ledger", ""],
  ];
  ui.tab ??= "requests";
  const choose = (id) => {
    ui.tab = id;
    ui.sure = "";
    redraw();
  };
  const screens = { requests, releases, budget, ledger };
  const label = list.find(([id]) => id === ui.tab)[1];
  return [header(page), tabs("Parts of the console", list, ui.tab, choose), pane(label, screens[ui.tab](page))];
}

function header(page) {
  const { view } = page;
  const { service } = view;
  return [
    h(
      "div",
      { class: "fp-head" },
      h("h2", {}, view.name, h("span", { class: "fp-quiet fp-email" }, ` ${view.email}`)),
      service.running
        ? mark("fp-good", "● the service runs", { "data-service": "running" })
        : service.starting
          ? mark("fp-warn", "… the service starts", { "data-service": "starting" })
          : mark("fp-bad", "○ the service does not run", { "data-service": "stopped" }),
    ),
    h("p", { class: "fp-quiet" }, "The service: ", service.doing, service.since_s ? [", since ", clock(service.since_s)] : null),
    more(page),
    view.problem ? notice("fp-bad", h("strong", {}, "✗ What you see may be old. "), view.problem) : null,
    serving(page),
    view.opened.study ? null : waits(view.waiting),
  ];
}

/** What is to be done about the service: start it where it does not run, restart it where its limits are old ones. */
function serving({ view, ask }) {
  const { service } = view;
  if (service.starting) return notice("fp-warn", h("strong", {}, "… The service starts."), " It serves in some seconds.");
  if (!service.running) {
    return notice(
      "fp-warn",
      service.problem ? h("p", {}, h("strong", { class: "fp-bad" }, "✗ It ended: "), service.problem) : null,
      h("strong", {}, "! Nobody answers the researchers now. "),
      "What you decide here is kept, and told as soon as the service runs. Next: ",
      button("Start the service", () => ask({ do: "serve" }), { class: "fp-button fp-small fp-main", "data-do": "serve" }),
      " or in a terminal ",
      h("code", { class: "fp-break" }, view.serve_command),
    );
  }
  if (!service.older_than_config) return null;
  return notice(
    "fp-warn",
    h("strong", {}, "! The service keeps to an older domain.yaml. "),
    "The file was changed after it began. Next: stop it (under More), then start it again.",
  );
}

function more(page) {
  const { view } = page;
  const stop = {
    name: "stop",
    about: view.name,
    label: "Stop the service",
    question: "Nobody answers the researchers then.",
    yes: "Yes, stop it",
    act: () => page.ask({ do: "stop" }),
  };
  return h(
    "details",
    { class: "fp-more" },
    h("summary", {}, "More: your key in words, stopping the service"),
    h("p", {}, "Your key in twelve words, to be read out over the phone: ", h("strong", {}, view.words)),
    view.service.running ? twice(page, stop) : null,
  );
}

function waits(waiting) {
  const mine = waiting.filter((wait) => wait.who === "you");
  const all = [...mine, ...waiting.filter((wait) => wait.who !== "you")];
  const nothing = mine.length ? null : h("p", {}, h("strong", { class: "fp-good" }, "✓ "), "Nothing waits for you.");
  if (!all.length) return nothing;
  return [nothing, h(
    "ul",
    { class: "fp-waits", "aria-label": "What is waited for" },
    all.slice(0, MOST_WAITS).map((wait) =>
      h(
        "li",
        {},
        wait.who === "you" ? h("strong", { class: "fp-warn" }, "● You: ") : h("span", { class: "fp-quiet" }, "○ The researcher: "),
        wait.what,
        h("span", { class: "fp-quiet" }, ", since ", clock(wait.since_s)),
      ),
    ),
    all.length > MOST_WAITS ? h("li", { class: "fp-quiet" }, `and ${all.length - MOST_WAITS} more`) : null,
  )];
}

function requests(page) {
  const { view, ask, ui } = page;
  if (view.opened.study) return review(page);
  if (!view.requests.length) {
    return h("p", { class: "fp-quiet" }, "No requests yet. A researcher whose key you pinned can send one.");
  }
  const open = (study) => () => {
    ui.part = "summary";
    ui.sure = "";
    ask({ do: "open", study });
  };
  return [
    h(
      "table",
      { class: "fp-wide fp-requests" },
      h("caption", { class: "fp-hidden" }, "Code requests, those to decide first"),
      h("thead", {}, h("tr", {}, ["Request", "From", "Received", "Rounds", "Your limits", "Decision"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, view.requests.map((row) => requestRow(row, open(row.study)))),
    ),
    view.more_requests ? h("p", { class: "fp-quiet" }, `and ${view.more_requests} older ones: see fedpriv domain requests`) : null,
  ];
}

function requestRow(row, open) {
  const limits = row.problem
    ? h("span", { class: "fp-bad" }, "✗ cannot be read")
    : row.within_limits
      ? h("span", { class: "fp-good" }, "✓ within")
      : h("span", { class: "fp-bad" }, "✗ outside");
  return h(
    "tr",
    { key: row.study, "data-study": row.study },
    h(
      "td",
      {},
      button(row.decision === "pending" ? `Read: ${row.title}` : row.title, open, { class: "fp-link", "data-do": "open" }),
      h("div", { class: "fp-quiet" }, row.study.slice(0, 12)),
    ),
    h("td", {}, row.researcher),
    h("td", {}, clock(row.received_s)),
    h("td", { class: "fp-number" }, row.rounds || "–"),
    h("td", {}, limits),
    h("td", {}, badge(row.decision)),
  );
}
