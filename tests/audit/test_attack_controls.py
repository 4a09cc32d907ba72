"""What an attack says counts only where it is known to find something: on gradients, and after the plan's own steps."""

import pytest

from fedpriv.audit.attacks import Control, MembershipAttack, TextAttack, TokenAttack
from fedpriv.leakage import SequenceTrial, Trial

SILENT, FAILED = "finds nothing even where nothing protects", "did not reach what it must on plain gradients"


def tokens(good: bool):
    """Return trials whose four telling tokens are all named, or none of them."""
    secrets = [frozenset(range(4 * n, 4 * n + 4)) for n in range(8)]
    named = [sorted(secret) if good else [100, 101, 102, 103] for secret in secrets]
    return [Trial(secret=s, guesses=g, others=[104, 105, 106, 107]) for s, g in zip(secrets, named, strict=True)]


def texts(good: bool):
    found = [tuple(range(10 * n, 10 * n + 10)) for n in range(8)]
    return [SequenceTrial(truth=text, guess=text if good else (999,), other=(999,)) for text in found]


def members(good: bool):
    return [(0.9 + n / 100, 0.1 + n / 100) if good else (0.1 * (n % 3), 0.1 * ((n + 1) % 3)) for n in range(9)]


ATTACKS = [
    (TokenAttack(dictionary=None, plain=None, common=frozenset()), tokens),
    (TextAttack(reader=None, dictionary=None, plain_reader=None, plain=None, most=8), texts),
    (MembershipAttack(), members),
]


@pytest.mark.parametrize(("attack", "made"), ATTACKS, ids=lambda value: getattr(value, "name", ""))
def test_silence_counts_only_where_both_controls_speak(attack, made):
    speaks = attack.judge(made(False), Control(gradients=made(True), steps=made(True)))
    assert speaks.why_not == ""
    assert speaks.found.value < 0.6
    for gradients, steps, why in ((True, False, SILENT), (False, True, FAILED), (False, False, FAILED)):
        finding = attack.judge(made(False), Control(gradients=made(gradients), steps=made(steps)))
        assert finding.found is None
        assert why in finding.why_not
        assert finding.trials == len(made(False))


@pytest.mark.parametrize(("attack", "made"), ATTACKS, ids=lambda value: getattr(value, "name", ""))
def test_too_few_trials_say_nothing_whatever_the_controls_are(attack, made):
    finding = attack.judge(made(True)[:4], Control(gradients=made(True), steps=made(True)))
    assert finding.found is None
    assert "fewer than 5" in finding.why_not
