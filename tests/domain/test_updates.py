"""A trained update enters one sum at most: late ones are carried on, and what was carried is never confirmed."""

import pytest

from fedpriv.domain.confirming import Confirming
from fedpriv.domain.updates import TrainedUpdate, Updates
from fedpriv.errors import RefusedError
from tests.domain.cohort import MEMBERS, Cohort

FIRST, SECOND, THIRD = MEMBERS
CHANGES = {FIRST: 0.012, SECOND: 0.006, THIRD: 0.0}
NOTHING = dict.fromkeys(MEMBERS, 0.0)


@pytest.fixture
def cohort(tmp_path, ada):
    return Cohort(tmp_path, ada)


def without_first(cohort, number, changes):
    """Run a round in which all seal, but whose sum the first domain misses; return all signed updates."""
    updates = cohort.seal(number, changes)
    manifest, data = cohort.aggregate(number, {email: updates[email] for email in (SECOND, THIRD)})
    for email in MEMBERS:
        cohort.open(email, manifest, data)
    return updates


def whole(cohort, number, changes):
    manifest, data = cohort.aggregate(number, cohort.seal(number, changes))
    for email in MEMBERS:
        cohort.open(email, manifest, data)


def test_a_late_update_comes_with_the_next_sum_discounted(cohort):
    without_first(cohort, 1, CHANGES)
    assert cohort.moved(FIRST, 1) == pytest.approx(0.003, abs=2e-4)
    whole(cohort, 2, NOTHING)
    assert cohort.moved(FIRST, 2) == pytest.approx(0.012 * 2**-0.5 / 3, abs=2e-4)
    assert cohort.facts(FIRST, "update.sealed")[-1]["carried"] == [1]
    whole(cohort, 3, NOTHING)
    assert cohort.moved(FIRST, 3) == pytest.approx(0.0, abs=2e-4)  # and only once
    assert "carried" not in cohort.facts(FIRST, "update.sealed")[-1]
    whole(cohort, 4, NOTHING)
    left = sorted(path.name[:4] for path in cohort.domains[FIRST].folder.updates.glob("*.safetensors"))
    assert left == ["0003", "0004"]  # the newest two sums could still be asked for again


def test_late_updates_of_several_rounds_add_up_each_by_its_age(cohort):
    others = {SECOND: 0.01, THIRD: 0.01}
    without_first(cohort, 1, others | {FIRST: 0.009})
    without_first(cohort, 2, others | {FIRST: 0.0})
    without_first(cohort, 3, others | {FIRST: 0.006})
    whole(cohort, 4, others | {FIRST: 0.0})
    expected = (0.02 + 0.009 * 4**-0.5 + 0.006 * 2**-0.5) / 3
    assert cohort.moved(FIRST, 4) == pytest.approx(expected, abs=2e-4)
    assert cohort.facts(FIRST, "update.sealed")[-1]["carried"] == [1, 2, 3]


def test_what_was_carried_on_is_not_confirmed_in_its_own_round_any_more(cohort):
    first = without_first(cohort, 1, CHANGES)
    cohort.seal(2, NOTHING)
    everybody = tuple(first[email] for email in sorted(first))
    with pytest.raises(RefusedError, match="sealed in round 1 was carried on to round 2"):
        Confirming(cohort.domains[FIRST]).confirm(cohort.ticket(FIRST, "confirm", 1, 1, updates=everybody))


def test_what_was_confirmed_is_never_carried(cohort):
    updates = cohort.seal(1, CHANGES)
    signed = tuple(updates[email] for email in sorted(updates))
    Confirming(cohort.domains[FIRST]).confirm(cohort.ticket(FIRST, "confirm", 1, 1, updates=signed))
    late = Updates(cohort.domains[FIRST])
    assert late.late(2) == []
    update = late.trained_for(1)
    for number in (2, 3):
        with pytest.raises(RefusedError, match="was sealed for round 1"):
            late.claim(update, number)
    late.claim(update, 1)  # another attempt of its own round


def test_an_update_does_not_go_back_to_a_round_it_was_taken_out_of(cohort):
    without_first(cohort, 1, CHANGES)
    cohort.seal(2, NOTHING)
    updates = Updates(cohort.domains[FIRST])
    with pytest.raises(RefusedError, match="was sealed for round 2"):
        updates.claim(updates.trained_for(1), 1)
    with pytest.raises(RefusedError, match="no trained update of round 7"):
        updates.claim(TrainedUpdate(round=7, start="0" * 16), 7)


def test_another_attempt_carries_what_the_first_one_carried(cohort):
    without_first(cohort, 1, CHANGES)
    cohort.seal(2, NOTHING)
    cohort.rekey(2)
    updates = cohort.seal(2, NOTHING, attempt=2)
    manifest, data = cohort.aggregate(2, updates, attempt=2)
    cohort.open(FIRST, manifest, data)
    assert cohort.moved(FIRST, 2) == pytest.approx(0.012 * 2**-0.5 / 3, abs=2e-4)


def test_a_kill_after_the_claim_seals_the_same(cohort, monkeypatch):
    without_first(cohort, 1, CHANGES)
    monkeypatch.setattr("fedpriv.domain.sealing.sealer_for", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cohort.seal(2, {FIRST: 0.0})
    monkeypatch.undo()
    whole(cohort, 2, NOTHING)
    assert cohort.moved(FIRST, 2) == pytest.approx(0.012 * 2**-0.5 / 3, abs=2e-4)
