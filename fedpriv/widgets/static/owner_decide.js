// The decision on a request: approve with limits, reject, withdraw.

import { h } from "./dom.js";
import { button } from "./panel.js";
import { clock, field, hasEnded, idOf, notice, tick, withReason } from "./owner_parts.js";

export function decide(page) {
  const { view } = page;
  const row = view.requests.find((known) => known.study === view.opened.study);
  const state = view.review?.decision ?? row?.decision;
  return [
    view.review ? now(view.review) : null,
    unread(page),
    view.review?.form ? approve(page, view.review) : null,
    state === "approved" ? no(page, "revoke") : state === "rejected" || state === "revoked" ? null : no(page, "reject"),
  ];
}

function now(seen) {
  return [
    h("p", {}, "Now: ", h("strong", { "data-now": seen.decision }, seen.decision), seen.reason ? ` (${seen.reason})` : "", seen.limits.length ? ", with these limits:" : "."),
    seen.decision === "approved" && hasEnded(seen.ends_s)
      ? notice("fp-warn", h("strong", {}, "! The approval has ended. "), "Nothing is carried out for it any more. Next: give it more days, or leave it.")
      : null,
    seen.limits.length ? h("ul", { class: "fp-checks" }, seen.limits.map((phrase) => h("li", {}, phrase))) : null,
  ];
}

function unread({ unread: parts, choose }) {
  if (!parts?.length) return null;
  return notice(
    "fp-warn",
    h("strong", {}, "! You have not looked at: "),
    parts.map(([id, label]) => [button(label, () => choose(id), { key: id, class: "fp-button fp-small" }), " "]),
  );
}

// -- approve ----------------------------------------------------------------------------------------------------------

/** What the form says: what was typed, else the limits that stand or are proposed. */
function formOf({ ui }, seen) {
  ui.forms ??= {};
  const { limits, metrics } = seen.form;
  const days = limits.expires_s && !seen.form.given ? Math.round((limits.expires_s - Date.now() / 1000) / 86400) : "";
  const [from, to] = (limits.hours ?? "-").split("-");
  const start = {
    rounds: limits.rounds,
    seconds: limits.seconds ?? seen.form.seconds_most,
    days,
    from,
    to,
    minimum_cohort: limits.minimum_cohort,
    epsilon: limits.epsilon ?? seen.form.epsilon_most ?? "",
    metrics: metrics.filter((metric) => limits.metrics.includes(metric.name)).map((metric) => metric.name),
    release: limits.release,
  };
  return { ...start, ...ui.forms[seen.study] };
}

function approve(page, seen) {
  const { ui, redraw, ask } = page;
  const { form } = seen;
  if (!seen.within_limits) {
    return notice("fp-bad", h("strong", {}, "✗ It cannot be approved as it is: "), "it is outside your limits. Next: reject it, or change domain.yaml if you mean it.");
  }
  const values = formOf(page, seen);
  const set = (name, value) => {
    ui.forms[seen.study] = { ...ui.forms[seen.study], [name]: value };
    redraw();
  };
  const number = (name, label, hint, least, most, step = 1) => {
    const props = { type: "number", min: least, max: most, step, value: values[name] };
    return field(ui, name, label, hint, "input", { ...props, oninput: (event) => set(name, event.target.value) });
  };
  const wrong = mistakes(values, form);
  const send = () => {
    ask({ do: "approve", study: seen.study, terms: terms(values, form) });
    delete ui.forms[seen.study];
  };
  return h(
    "section",
    { class: "fp-card", "aria-label": "Approve with limits" },
    h("h4", {}, form.given ? "Change the limits of your approval" : "Approve with limits"),
    h(
      "div",
      { class: "fp-fields" },
      number("rounds", "Rounds at most", `the plan has ${form.rounds_most}; no later one is carried out`, 1, form.rounds_most),
      number("seconds", "Seconds a round at most", `then it stops, with the work so far; the plan: ${form.seconds_most}`, 5, form.seconds_most),
      lastDay(number, form),
      number("minimum_cohort", "Domains in a sum at least", `a sum of fewer is never opened; the plan's smallest has ${form.cohort_most}`, form.cohort_least, form.cohort_most),
      form.epsilon_most === null
        ? h("p", { key: "no-epsilon", class: "fp-quiet fp-hint" }, "This plan has no differential privacy: an epsilon would limit nothing, so none is asked for.")
        : number("epsilon", "Epsilon at most", `of your privacy budget; the plan asks for ${form.epsilon_most}`, 0.01, form.epsilon_most, "any"),
      hours(values, set, form),
    ),
    metricsField(ui, values, form, set),
    tick(ui, "release", "Hand over the trained adapter at the end without asking me again", {
      checked: values.release,
      onchange: (event) => set("release", event.target.checked),
    }),
    wrong.length ? h("p", { class: "fp-bad", id: idOf(ui, "wrong") }, `✗ ${wrong.join("; ")}.`) : null,
    h(
      "div",
      { class: "fp-row" },
      button(form.given ? "Change the limits" : "Approve with these limits", send, {
        class: "fp-button fp-main",
        disabled: wrong.length > 0,
        "aria-describedby": wrong.length ? idOf(ui, "wrong") : null,
        "data-do": "approve",
      }),
    ),
  );
}

function lastDay(number, form) {
  const until = form.given && form.limits.expires_s;
  const hint = until ? ["now until ", clock(form.limits.expires_s), "; empty keeps that"] : form.given ? "empty: it does not end by itself" : "then it ends by itself; empty: never";
  return number("days", "Days until it ends", hint, 1, 3650);
}

function hours(values, set, form) {
  const hint = form.given && form.limits.hours ? "your local time; empty keeps them as they are" : "your local time, such as 19:00 and 07:00; empty: at any hour";
  const time = (name, label) =>
    h("input", { "data-field": name, type: "time", "aria-label": label, value: values[name], oninput: (event) => set(name, event.target.value) });
  return h(
    "div",
    { key: "hours", class: "fp-field", role: "group", "aria-label": "Hours in which the model may be run" },
    h("span", {}, "Only between"),
    h("span", { class: "fp-hours" }, time("from", "from this time of the day"), " and ", time("to", "to this time of the day")),
    h("span", { class: "fp-quiet fp-hint" }, hint),
  );
}

function metricsField(ui, values, form, set) {
  const toggle = (name, on) => set("metrics", form.metrics.map((metric) => metric.name).filter((known) => (known === name ? on : values.metrics.includes(known))));
  return h(
    "fieldset",
    { class: "fp-metrics" },
    h("legend", {}, "Numbers that may leave"),
    form.metrics.map((metric) =>
      tick(ui, metric.name, `${metric.name}: ${metric.words}${metric.required ? " (no round without it)" : ""}`, {
        checked: values.metrics.includes(metric.name),
        disabled: metric.required,
        onchange: (event) => toggle(metric.name, event.target.checked),
      }),
    ),
  );
}

function mistakes(values, form) {
  const wrong = [];
  const within = (name, label, least, most) => {
    const value = Number(values[name]);
    if (values[name] === "" || !Number.isFinite(value) || value < least || value > most) wrong.push(`${label} must be from ${least} to ${most}`);
  };
  within("rounds", "rounds", 1, form.rounds_most);
  within("seconds", "seconds", 5, form.seconds_most);
  within("minimum_cohort", "domains", form.cohort_least, form.cohort_most);
  if (values.days !== "") within("days", "days", 1, 3650);
  if (form.epsilon_most !== null) within("epsilon", "epsilon", 0.01, form.epsilon_most);
  if (Boolean(values.from) !== Boolean(values.to)) wrong.push("give both times, or neither");
  return wrong;
}

function terms(values, form) {
  return {
    rounds: Number(values.rounds),
    seconds: Number(values.seconds),
    days: values.days === "" ? null : Number(values.days),
    hours: values.from ? `${values.from}-${values.to}` : null,
    minimum_cohort: Number(values.minimum_cohort),
    epsilon: form.epsilon_most === null ? null : Number(values.epsilon),
    metrics: values.metrics,
    release: values.release,
  };
}

// -- reject and withdraw -----------------------------------------------------------------------------------------------

const NO = {
  reject: {
    title: "Reject",
    label: "Reject the request",
    question: "The researcher gets your reason; nothing is run.",
    yes: "Yes, reject it",
  },
  revoke: {
    title: "Withdraw the approval",
    label: "Withdraw the approval",
    question: "Training stops at once, and nothing more leaves.",
    yes: "Yes, withdraw it",
  },
};

function no(page, verdict) {
  const { study } = page.view.opened;
  const { title, ...words } = NO[verdict];
  const step = { ...words, name: verdict, about: study, act: (reason) => page.ask({ do: verdict, study, reason }) };
  return h("section", { key: verdict, class: "fp-card", "aria-label": title }, h("h4", {}, title), withReason(page, step, "Reason"));
}
