"""The audit finds what is there to find, says so of each party, and gives nothing of a note away."""

import re
from pathlib import Path

import pytest

import fedpriv.audit
from fedpriv.audit import AuditChoice, audit_leakage, write_page
from fedpriv.domain.ledger_export import words_of
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import ConfigError
from fedpriv.study import privacy, protection_choice
from fedpriv.study.plan import TrainingChoice
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice
from fedpriv.training.adapter import save_state, starting_adapter
from fedpriv.training.base_model import ensure_model
from fedpriv.training.examples import Encoder, read_lines


def audited(asked, *, passages=6, rounds=0, epsilons=(), texts=0, **sections):
    request = asked.request(**sections)
    choice = AuditChoice(passages=passages, rounds=rounds, epsilons=epsilons, texts=texts)
    return audit_leakage(asked.domain, asked.stored(request), choice, cache=asked.cache)


@pytest.fixture(scope="module")
def sealed(asked):
    return audited(asked, passages=9, texts=5)


def test_an_update_without_protection_is_read_and_a_sealed_one_is_not(sealed):
    bare, researcher = sealed.of("unprotected"), sealed.of("aggregator")
    assert bare.leaks
    assert bare.found.value > 0.3
    assert bare.control.value > 0.8
    assert sealed.not_measured == ()
    assert researcher.found.value < 0.25
    assert researcher.found.value < bare.found.low
    assert sealed.of("unprotected", attack="membership").found.value > 0.9


def test_passages_are_read_word_for_word_where_it_is_asked_for(sealed, tmp_path):
    """After four steps of AdamW two layers tell little of the order; a single gradient tells all."""
    bare, researcher = (sealed.of(party, attack="text") for party in ("unprotected", "aggregator"))
    assert (bare.trials, researcher.trials) == (5, 5)
    assert bare.control.value > 0.9
    assert not researcher.leaks
    assert (bare.found is None) == (researcher.found is None) == bool(researcher.why_not)
    assert bare.found is None or bare.leaks
    assert "from the first word to the last" in write_page(sealed, tmp_path / "page.html").read_text()


def test_colluding_domains_hold_about_what_nothing_protects(sealed):
    bare, rest = (sealed.of(party).found.value for party in ("unprotected", "collusion"))
    assert abs(bare - rest) < 0.15
    assert sealed.of("sum").found.value == rest, "of two, the other one is all others"
    assert sealed.of("sum").domains == 2
    assert sealed.of("sum-of-all").found.value < bare
    assert sealed.of("sum-of-all").domains == 3


def test_the_ledger_says_that_it_was_audited_with_the_numbers(asked, sealed):
    (entry,) = [e for e in asked.domain.ledger.verified() if e.kind == "leakage.audited" and e.number <= 6]
    assert entry.facts["study"] == sealed.study
    assert "what others could read" in words_of(entry.kind)
    assert re.fullmatch(r"-?\d\.\d\d \[-?\d\.\d\d, -?\d\.\d\d\]", entry.facts["tokens aggregator alone"])


def test_a_plan_with_plain_tensors_leaks_and_the_advice_says_what_sealing_them_gives(asked):
    rules = (LevelRule(tensors=("*.lora_A.*",), level="plain"),)
    found = audited(asked, passages=7, domains=2, protection=ProtectionChoice(rules=rules))
    assert found.of("aggregator").leaks
    (first, *_) = found.advice
    assert first.kind == "seal"
    assert "4 of 8 tensors" in first.text
    assert "With every tensor sealed, the same attack gave" in first.text
    assert found.of("aggregator-all-sealed").found.value < found.of("aggregator").found.low


def test_under_ckks_another_domain_reads_the_update(asked):
    found = audited(asked, domains=2, protection=ProtectionChoice(level="ckks"))
    assert found.of("reader").leaks
    assert found.of("aggregator").found.value < found.of("reader").found.low
    assert any("CKKS" in advice.text for advice in found.advice)


def test_the_study_s_newest_adapter_is_asked_about_notes(asked):
    request = asked.request(title="With a round behind it", training=TrainingChoice(steps=1, precision="float32"))
    folder = StudyFolder(asked.domain.folder.study(request.study))
    model = ensure_model("tiny", cache=asked.cache).folder
    folder.adapter(2).parent.mkdir(parents=True, exist_ok=True)
    save_state(starting_adapter(model, request.plan.lora, 0), folder.adapter(2))
    found = audit_leakage(asked.domain, asked.stored(request), AuditChoice(passages=5, rounds=0), cache=asked.cache)
    (measure,) = [m for m in found.measures if m.scene == "adapter"]
    assert (measure.party, measure.attack, measure.domains) == ("released", "membership", 3)
    assert measure.found.low <= 0.5, "it was trained on nothing"
    assert any("after its round 2" in note for note in found.notes)


def test_too_few_passages_or_an_odd_epsilon_are_refused_before_anything_is_done(asked):
    before = len(asked.domain.ledger.entries())
    for choice in ({"passages": 4}, {"texts": 4}, {"epsilons": (0.0,)}):
        with pytest.raises(ConfigError):
            audited(asked, **choice)
    assert len(asked.domain.ledger.entries()) == before


def test_nothing_of_a_note_is_in_the_result_the_page_or_the_ledger_nor_left_behind(asked, sealed, tmp_path):
    page = write_page(sealed, tmp_path / "page.html").read_text()
    whole = page + sealed.model_dump_json() + asked.domain.folder.ledger_path.read_text()
    (data,) = asked.domain.folder.data.glob("*/train.jsonl")
    lines = read_lines(data)
    said = set(re.findall(r"[a-z]{4,}", whole.lower()))
    words = {word for line in lines for word in re.findall(r"[a-z]{7,}", line.text.lower())}
    assert len(words) > 50
    assert not [word for word in words & said if word not in _OUR_WORDS]
    encoder = Encoder(ensure_model("tiny", cache=asked.cache).folder, 96)
    for example in encoder.encode([line.text for line in lines[:50]]):
        assert encoder.decode(example.ids[:12]) not in whole
    assert not (asked.domain.folder.state / "tries").exists()


_OWN = Path(fedpriv.audit.__file__).parent
_OUR_WORDS = " ".join(
    path.read_text().lower()
    for path in (*_OWN.glob("*.py"), *_OWN.glob("*.html"), Path(privacy.__file__), Path(protection_choice.__file__))
)
"""What stands on the page whoever's notes are audited."""
