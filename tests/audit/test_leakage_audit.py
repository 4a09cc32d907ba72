"""The audit finds what is there to find, and says so of each party."""

import json
import re
import stat

import pytest

from fedpriv.audit import AuditChoice, audit_leakage, write_page
from fedpriv.domain.ledger_export import words_of
from fedpriv.errors import ConfigError
from fedpriv.study.privacy import PrivacyChoice
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice
from fedpriv.training.base_model import ensure_model
from fedpriv.training.examples import Encoder, read_lines

FEW = AuditChoice(passages=10, rounds=0)


def audited(asked, choice=FEW, **sections):
    request = asked.request(**sections)
    return audit_leakage(asked.domain, asked.stored(request), choice, cache=asked.cache)


@pytest.fixture(scope="module")
def sealed(asked):
    return audited(asked)


def test_an_update_without_protection_is_read_and_a_sealed_one_is_not(sealed):
    bare, researcher = sealed.of("unprotected"), sealed.of("aggregator")
    assert bare.leaks
    assert bare.found.value > 0.3
    assert bare.control.value > 0.8
    assert abs(researcher.found.value) < 0.2
    assert researcher.found.value < bare.found.low
    assert sealed.of("unprotected", attack="membership").found.value > 0.9


def test_colluding_domains_hold_about_what_nothing_protects(sealed):
    bare, rest = (sealed.of(party).found.value for party in ("unprotected", "collusion"))
    assert abs(bare - rest) < 0.15
    assert sealed.of("sum").found.value < bare
    assert sealed.of("sum").domains == 2
    assert sealed.of("sum-of-all").domains == 3


def test_a_plan_with_plain_tensors_leaks_and_the_advice_says_what_sealing_them_gives(asked):
    rules = (LevelRule(tensors=("*.lora_A.*",), level="plain"),)
    found = audited(asked, protection=ProtectionChoice(rules=rules))
    assert found.of("aggregator").leaks
    (first, *_) = found.advice
    assert first.kind == "seal"
    assert "4 of 8 tensors" in first.text
    assert "With every tensor sealed, the same attack gave" in first.text
    assert found.of("aggregator-all-sealed").found.value < found.of("aggregator").found.low


def test_a_level_without_a_view_is_not_measured(asked):
    found = audited(asked, protection=ProtectionChoice(level="ckks"))
    measure = found.of("aggregator")
    if measure.found is None:  # as long as nobody has written that view
        assert "no sign of safety" in measure.why_not
    assert any("CKKS" in advice.text for advice in found.advice)


def test_where_only_the_second_factor_is_sent_the_token_attack_is_not_measured(asked):
    found = audited(asked, privacy=PrivacyChoice(epsilon=8))
    for party in ("unprotected", "aggregator", "sum", "collusion"):
        assert found.of(party).found is None
        assert found.of(party).control.value < 0.8
    assert any(advice.kind == "control" for advice in found.advice)
    assert any("draws at random" in note for note in found.notes)
    assert found.of("unprotected", attack="membership").found is not None


def test_rounds_and_epsilons_are_measured_when_they_are_asked_for(asked):
    found = audited(asked, AuditChoice(passages=6, rounds=5, epsilons=(1.0,)))
    assert found.of("unprotected", scene="round").trials == 5
    assert found.of("unprotected", attack="membership", epsilon=1.0).found.low < 0.9
    assert any("epsilon 1" in advice.text for advice in found.advice)
    (entry,) = [e for e in asked.domain.ledger.verified() if e.facts.get("study") == found.study]
    assert entry.kind == "leakage.audited"
    assert "read" in words_of(entry.kind)
    assert re.fullmatch(r"-?\d\.\d\d \[-?\d\.\d\d, -?\d\.\d\d\]", entry.facts["tokens aggregator alone"])


def test_code_of_its_own_is_not_run_and_that_is_said(asked):
    found = audited(asked, recipe="raise SystemExit('it was run')\n")
    assert not found.stock_recipe
    assert any("the stock recipe's steps were measured" in note for note in found.notes)


def test_too_few_passages_or_an_odd_epsilon_are_refused_before_anything_is_done(asked):
    before = len(asked.domain.ledger.entries())
    for choice in (AuditChoice(passages=4), AuditChoice(epsilons=(0.0,))):
        with pytest.raises(ConfigError):
            audited(asked, choice)
    assert len(asked.domain.ledger.entries()) == before


def test_nothing_of_a_note_is_in_the_result_or_the_page_or_left_behind(asked, sealed, tmp_path):
    path = write_page(sealed, tmp_path / "page.html")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    whole = path.read_text() + sealed.model_dump_json() + asked.domain.folder.ledger_path.read_text()
    (data,) = asked.domain.folder.data.glob("*/train.jsonl")
    lines = read_lines(data)
    encoder = Encoder(ensure_model("tiny", cache=asked.cache).folder, 96)
    said = set(re.findall(r"[a-z]{4,}", whole.lower()))
    words = {word for line in lines for word in re.findall(r"[a-z]{7,}", line.text.lower())}
    assert words
    told = {word for word in words & said if not _is_ours(word)}
    assert not told, told
    for example in encoder.encode([line.text for line in lines[:50]]):
        assert encoder.decode(example.ids[:12]) not in whole
    assert not (asked.domain.folder.state / "tries").exists()
    json.loads(sealed.model_dump_json())


def _is_ours(word):
    """Whether a word stands in the page's own text, its template or the plan's, whoever's notes are audited."""
    from pathlib import Path

    import fedpriv.audit
    from fedpriv.study import privacy, protection_choice

    folder = Path(fedpriv.audit.__file__).parent
    sources = [*folder.glob("*.py"), *folder.glob("*.html"), *(Path(m.__file__) for m in (privacy, protection_choice))]
    return any(word in path.read_text().lower() for path in sources)


def test_the_page_needs_no_network_and_has_each_number_as_text(sealed, tmp_path):
    text = write_page(sealed, tmp_path / "page.html").read_text()
    assert not re.search(r"(src|href)\s*=|https?:|@import|url\(", text)
    for party in ("unprotected", "aggregator", "sum", "collusion"):
        value = round(100 * sealed.of(party).found.value)
        assert f'<td class="number">{value} %</td>'.replace("-", "\N{MINUS SIGN}") in text
    assert text.count("<svg") == text.count('aria-hidden="true">') - text.count('class="scale"')
    assert "prefers-color-scheme: dark" in text
