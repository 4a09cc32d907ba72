"""A round that can never be summed is skipped: the adapter stays, and what was confirmed in it enters no other sum."""

import json

import numpy as np
import pytest

from fedpriv.domain.confirming import Confirming
from fedpriv.domain.releasing import Releasing
from fedpriv.domain.skipping import Skipping
from fedpriv.errors import RefusedError, UntrustedError
from fedpriv.study.aggregation import AggregationChoice
from fedpriv.study.averaging import ServerChoice
from tests.domain.cohort import MEMBERS, Cohort

FIRST, SECOND, THIRD = MEMBERS
CHANGES = {FIRST: 0.012, SECOND: 0.006, THIRD: 0.003}
NOTHING = dict.fromkeys(MEMBERS, 0.0)


@pytest.fixture
def cohort(tmp_path, ada):
    return Cohort(tmp_path, ada)


def whole(cohort, number, changes):
    manifest, data = cohort.aggregate(number, cohort.seal(number, changes))
    for email in MEMBERS:
        cohort.open(email, manifest, data)
    return manifest, data


def confirm(cohort, email, number, updates):
    signed = tuple(updates[e] for e in sorted(updates))
    return Confirming(cohort.domains[email]).confirm(cohort.ticket(email, "confirm", number, 1, updates=signed))


def skip(cohort, email, number, attempt=1):
    Skipping(cohort.domains[email]).skip(cohort.ticket(email, "skip", number, attempt))


def half_confirmed(cohort, number):
    """Have the second and third confirm a sum of all three, and all skip the round; return the updates."""
    updates = cohort.seal(number, CHANGES)
    for email in (SECOND, THIRD):
        confirm(cohort, email, number, updates)
    for email in MEMBERS:
        skip(cohort, email, number)
    return updates


def test_the_adapter_stays_as_it_was_and_the_next_round_moves_it(cohort):
    whole(cohort, 1, CHANGES)
    half_confirmed(cohort, 2)
    for context in cohort.domains.values():
        assert context.adapter_digest(2) == context.adapter_digest(1)
        assert context.scales(3) == context.scales(2)
    whole(cohort, 3, CHANGES)
    assert len({context.adapter_digest(3) for context in cohort.domains.values()}) == 1
    assert cohort.moved(SECOND, 3) > 0.006


def test_what_was_confirmed_is_in_no_later_sum_and_what_was_not_is_carried_on_once(cohort):
    half_confirmed(cohort, 1)
    whole(cohort, 2, NOTHING)
    assert cohort.moved(FIRST, 2) == pytest.approx(0.012 * 2**-0.5 / 3, abs=2e-4)  # the first alone, discounted
    assert cohort.facts(FIRST, "update.sealed")[-1]["carried"] == [1]
    for email in (SECOND, THIRD):
        assert "carried" not in cohort.facts(email, "update.sealed")[-1]
    whole(cohort, 3, NOTHING)
    assert cohort.moved(FIRST, 3) == pytest.approx(0.0, abs=2e-4)


def test_a_skipped_round_is_neither_confirmed_nor_opened_any_more(cohort):
    updates = cohort.seal(1, CHANGES)
    manifest, data = cohort.aggregate(1, updates)
    skip(cohort, FIRST, 1)
    with pytest.raises(RefusedError, match="Round 1 was skipped here"):
        confirm(cohort, FIRST, 1, updates)
    with pytest.raises(UntrustedError, match="Round 1 was skipped here"):
        cohort.open(FIRST, manifest, data)
    cohort.open(SECOND, manifest, data)
    with pytest.raises(RefusedError, match="The sum of round 1 was opened here"):
        skip(cohort, SECOND, 1)


def test_skipping_again_changes_nothing_and_is_written_once(cohort):
    whole(cohort, 1, CHANGES)
    for _ in range(2):
        skip(cohort, FIRST, 2)
    (facts,) = cohort.facts(FIRST, "round.skipped")
    assert (facts["round"], facts["confirmed"]) == (2, False)
    with pytest.raises(RefusedError, match="has not opened the sum of round 3"):
        skip(cohort, FIRST, 4)


def test_the_sealed_update_leaves_the_disk_and_the_store(cohort):
    cohort.seal(1, CHANGES)
    assert any("update" in name for name in cohort.relay.data)
    for email in MEMBERS:
        skip(cohort, email, 1)
        assert not cohort.domains[email].folder.sealed_path(1, 1).exists()
    assert not any("update" in name for name in cohort.relay.data)


def test_a_server_optimiser_goes_on_from_what_it_remembered(tmp_path, ada):
    server = ServerChoice(optimizer="momentum", learning_rate=1.0)
    skipped = Cohort(tmp_path / "a", ada, aggregation=AggregationChoice(server=server))
    plain = Cohort(tmp_path / "b", ada, aggregation=AggregationChoice(server=server))
    whole(skipped, 1, CHANGES)
    whole(plain, 1, CHANGES)
    for email in MEMBERS:
        skip(skipped, email, 2)
    whole(skipped, 3, NOTHING)
    whole(plain, 2, NOTHING)
    moved = [skipped.domains[FIRST].adapter(3), plain.domains[FIRST].adapter(2)]
    for name in moved[0]:
        np.testing.assert_allclose(moved[0][name], moved[1][name], atol=2e-4)
    assert skipped.moved(FIRST, 3) > 0.003  # momentum alone


def test_a_release_still_wants_everybody_of_the_last_sum_there_was(cohort):
    whole(cohort, 1, CHANGES)
    for email in MEMBERS:
        skip(cohort, email, 2)
    releasing = Releasing(cohort.domains[FIRST], None)
    assert releasing._quorum(2) == 3
    assert releasing._quorum(1) == 3


def test_a_release_after_no_sum_at_all_wants_the_whole_cohort(cohort):
    skip(cohort, FIRST, 1)
    assert Releasing(cohort.domains[FIRST], None)._quorum(1) == 3


def test_the_record_of_a_skipped_round_names_nobody(cohort):
    skip(cohort, FIRST, 1)
    record = json.loads((cohort.domains[FIRST].folder.adapters / "0001.json").read_text())
    assert record["members"] == []
