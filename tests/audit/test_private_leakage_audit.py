"""Audits of plans with differential privacy, of whole rounds, and of what an epsilon would do."""

from fedpriv.study.privacy import PrivacyChoice
from tests.audit.test_leakage_audit import audited


def test_where_only_the_second_factor_is_sent_the_token_attack_is_not_measured(asked):
    found = audited(asked, domains=2, privacy=PrivacyChoice(epsilon=8), rounds=5)
    for party in ("unprotected", "aggregator", "sum", "collusion"):
        assert found.of(party).found is None
        assert found.of(party).control.value < 0.8
        assert found.of(party, scene="round") is None
    assert any(advice.kind == "control" for advice in found.advice)
    assert any("draws at random" in note for note in found.notes)
    assert found.of("unprotected", attack="membership").found is not None


def test_rounds_and_epsilons_are_measured_when_they_are_asked_for(asked):
    found = audited(asked, domains=2, rounds=5, epsilons=(1.0,))
    assert found.of("unprotected", scene="round").trials == 5
    assert found.of("unprotected", attack="membership", epsilon=1.0).found.low < 0.9
    assert any("at epsilon 1 " in advice.text for advice in found.advice)


def test_noise_on_the_update_of_a_round_hides_what_it_was_computed_from(asked):
    found = audited(asked, domains=2, privacy=PrivacyChoice(unit="domain", epsilon=1))
    assert found.of("unprotected").found.value < 0.3
    assert any("differential privacy on them" in note for note in found.notes)
