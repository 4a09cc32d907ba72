"""The page and the advice follow from the numbers, and from nothing else."""

import re
import stat

import pytest

from fedpriv.audit import LeakageAudit, Measure, write_page
from fedpriv.audit.advice import advice_of
from fedpriv.audit.attacks import ENOUGH_TRIALS, SILENT
from fedpriv.audit.result import Range
from fedpriv.audit.words import headline, percent
from fedpriv.study import parse_plan

PLAN = f"""
title: "Notes <b> & more"
researcher: {{email: ada@y.org, fingerprint: "{"1" * 64}"}}
cohort:
- {{email: a@x.org, fingerprint: "{"2" * 64}"}}
- {{email: b@x.org, fingerprint: "{"3" * 64}"}}
- {{email: c@x.org, fingerprint: "{"4" * 64}"}}
base_model: {{name: tiny}}
"""
OPEN = PLAN + "protection: {rules: [{tensors: ['*.lora_A.*'], level: plain}]}\n"
SENT = tuple(f"base_model.model.model.layers.0.self_attn.{x}_proj.lora_{f}.weight" for x in "qv" for f in "AB")


def measure(party, value, *, width=0.05, attack="tokens", scene="alone", domains=2, epsilon=None, why_not=""):
    found = None if value is None else Range(value=value, low=value - width, high=value + width)
    return Measure(
        scene=scene,
        party=party,
        domains=domains,
        attack=attack,
        found=found,
        control=Range(value=1.0, low=1.0, high=1.0),
        trials=16,
        epsilon=epsilon,
        why_not=why_not,
    )


def audit(*measures, plan=PLAN):
    parsed = parse_plan(plan)
    return LeakageAudit(
        fedpriv_version="0",
        study="ab" * 32,
        title=parsed.title,
        domain="micu",
        made_s=0.0,
        seconds=1.0,
        model="tiny",
        protection=parsed.protection.in_words(),
        privacy="",
        passages=16,
        tokens=24,
        common=64,
        round_notes=16,
        members=2,
        cohort=3,
        steps="4 steps",
        stock_recipe=True,
        notes=("A note.",),
        measures=measures,
        advice=advice_of(measures, parsed, SENT),
    )


CALM = (
    measure("unprotected", 0.6),
    measure("aggregator", -0.01),
    measure("sum", 0.2),
    measure("sum-of-all", 0.01, domains=3),
    measure("collusion", 0.6),
    measure("unprotected", 1.0, attack="membership"),
    measure("aggregator", 0.5, attack="membership", width=0.2),
)


def kinds(found):
    return [advice.kind for advice in found.advice]


def test_the_headline_says_what_was_found_of_whom():
    text = headline(audit(*CALM))
    assert text.startswith(
        "What the attacks made of what the researcher and the store hold could not be told from guessing."
    )
    assert "Were your updates not protected at all, they would reach 60 %" in text
    assert "from the sum that each of them opens, 20 %" in text
    leaky = headline(audit(measure("aggregator", 0.4), plan=OPEN))
    assert leaky.startswith("The researcher and the store can read from a single update of yours: 40 %")


def test_what_was_not_measured_is_no_all_clear():
    silent = audit(measure("aggregator", None, why_not="it failed"), measure("aggregator", None, attack="membership"))
    assert "not measured: do not take this page for an all-clear" in headline(silent)
    assert kinds(silent)[:1] == ["control"]
    assert "fine" not in kinds(silent)


def silent(trials, party="aggregator", **what):
    return measure(party, None, why_not=SILENT, **what).model_copy(update={"trials": trials})


def test_silence_over_few_passages_asks_for_more_and_nothing_is_called_fine(tmp_path):
    few = "These passages are too few to tell anything: measure again with --passages 16 or more."
    quiet = measure("aggregator", 0.5, attack="membership", width=0.2)
    found = audit(silent(6), quiet)
    assert kinds(found) == ["control"]
    assert found.advice[0].text.endswith(f"so its silence says nothing. {few}")
    page = write_page(found, tmp_path / "page.html").read_text()
    assert few in page
    assert "Nothing to change" not in page
    enough = audit(silent(ENOUGH_TRIALS), quiet)
    assert kinds(enough) == ["control", "fine"]
    assert "measure again" not in enough.advice[0].text
    of_texts, of_rounds = audit(silent(6, attack="text"), silent(8, scene="round")).advice
    assert of_texts.text.endswith("measure again with --texts 16 or more.")
    assert of_rounds.text.endswith("These rounds are too few to tell anything: measure again with --rounds 16 or more.")


def test_advice_to_seal_stands_where_plain_tensors_leak_with_what_sealing_gives():
    found = audit(measure("aggregator", 0.5), measure("aggregator-all-sealed", 0.0), plan=OPEN)
    assert kinds(found) == ["seal"]
    assert "50 % of a note's telling word pieces" in found.advice[0].text
    assert "2 of 4 tensors" in found.advice[0].text
    assert "With every tensor sealed, the same attack gave 0 %" in found.advice[0].text


def test_a_leak_that_the_plan_does_not_explain_is_not_explained_by_it():
    found = audit(measure("aggregator", 0.5))
    assert kinds(found) == ["limits"]
    assert "do not approve" in found.advice[0].text


def test_a_larger_cohort_is_advised_only_where_it_was_measured_to_help():
    helps = audit(*CALM)
    assert "--minimum-cohort 3" in next(a.text for a in helps.advice if a.kind == "cohort")
    not_so = audit(measure("sum", 0.2), measure("sum-of-all", 0.19, domains=3))
    assert "did not help" in not_so.advice[0].text
    assert "--minimum-cohort" not in not_so.advice[0].text
    assert kinds(audit(measure("sum", 0.0))) == []
    alone = audit(measure("sum", 0.2, domains=3)).advice[0].text
    assert "no more domains" in alone
    assert "takes its own part off" in alone


def test_no_minimum_is_advised_that_the_plan_would_never_reach():
    quorum = PLAN + "schedule: {quorum: 2}\n"
    for measures in (CALM, (measure("reader", 0.6),)):
        text = next(a.text for a in audit(*measures, plan=quorum).advice if a.kind == "cohort")
        assert "--minimum-cohort" not in text
        assert "ask for one whose quorum or buffer is 3" in text


def test_where_two_may_make_a_sum_each_knows_the_other_and_three_are_advised():
    (advice,) = audit(measure("reader", 0.6)).advice
    assert "60 %" in advice.text
    assert "--minimum-cohort 3" in advice.text
    assert audit(measure("reader", 0.0)).advice == ()
    assert audit(measure("reader", 0.6, domains=3)).advice == ()


def test_an_epsilon_is_called_quiet_only_below_every_one_that_leaks():
    tried = [
        measure("unprotected", value, attack="membership", epsilon=e) for e, value in ((1, 0.5), (4, 0.9), (8, 0.5))
    ]
    (advice,) = audit(*tried).advice
    assert "at epsilon 1 50 % (45 to 55 %); at epsilon 4 90 %" in advice.text
    assert "At epsilon 1 it could not be told from guessing" in advice.text
    loud = audit(*[measure("unprotected", 0.9, attack="membership", epsilon=1)]).advice[0].text
    assert "told from guessing" not in loud


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (-0.012, "\N{MINUS SIGN}1 %"), (1.0, "100 %"), (-0.001, "0 %")]
)
def test_shares_are_told_in_percent(share, text):
    assert percent(share) == text


def test_the_page_needs_no_network_escapes_titles_and_has_each_number_as_text(tmp_path):
    found = audit(
        *CALM, measure("unprotected", 0.7, attack="membership", epsilon=2.0), measure("sum", 0.1, scene="round")
    )
    path = write_page(found, tmp_path / "page.html")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert not re.search(r"(src|href)\s*=|https?:|@import|url\(|<script", text)
    assert "Notes &lt;b&gt; &amp; more" in text
    for shown in ("60 %", "\N{MINUS SIGN}1 %", "20 %", "100 %", "70 %"):
        assert f'<td class="number">{shown}</td>' in text
    assert text.count("<svg aria-hidden") == text.count('<td class="number">') == len(found.measures) + 1
    assert "prefers-color-scheme: dark" in text
    assert "No patient text is on this page" in text


def test_a_measure_without_a_number_has_its_reason_in_its_place(tmp_path):
    text = write_page(audit(measure("sum", None, why_not="it failed")), tmp_path / "page.html").read_text()
    assert "not measured<small>it failed</small>" in text


def test_the_adapter_has_a_part_of_its_own_where_there_is_one(tmp_path):
    without = write_page(audit(measure("aggregator", 0.0)), tmp_path / "without.html").read_text()
    assert "there is none here yet" in without
    assert "What the adapter itself tells" not in without
    told = measure("released", 0.8, attack="membership", scene="adapter", domains=3)
    found = audit(measure("aggregator", 0.0), told)
    page = write_page(found, tmp_path / "with.html").read_text()
    assert "What the adapter itself tells" in page
    assert "Whoever gets the adapter" in page
    assert "there is none here yet" not in page
    (advice,) = [a for a in advice_of([told], parse_plan(PLAN), SENT) if a.kind == "epsilon"]
    assert "80 % of the time" in advice.text
    assert "before you consent to its release" in advice.text
    assert not advice_of([measure("released", 0.5, attack="membership", scene="adapter")], parse_plan(PLAN), SENT)
