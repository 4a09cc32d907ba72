"""Sealing and opening at a domain, round by round: each once, with what earlier rounds and failures left."""

import numpy as np
import pytest

from fedpriv.domain.opening import Opening
from fedpriv.domain.tickets import failure
from fedpriv.errors import DataError, RefusedError, TamperedError, UntrustedError
from fedpriv.files import sha256_hex
from fedpriv.study import Ticket
from fedpriv.training.adapter import adapter_digest
from tests.domain.cohort import MEMBERS, Cohort

FIRST, SECOND, THIRD = MEMBERS
CHANGES = {FIRST: 0.012, SECOND: 0.006, THIRD: 0.0}


@pytest.fixture
def cohort(tmp_path, ada):
    return Cohort(tmp_path, ada)


def whole_round(cohort, number, changes=CHANGES, **options):
    updates = cohort.seal(number, changes, **options)
    manifest, data = cohort.aggregate(number, updates, attempt=options.get("attempt", 1))
    for email in changes:
        cohort.open(email, manifest, data)
    return manifest, data


def tampered(manifest, data):
    changed = bytearray(data)
    changed[8 + int.from_bytes(data[:8], "little") + 35] ^= 0x80  # far above the noise
    return manifest.model_copy(update={"aggregate_sha256": sha256_hex(bytes(changed))}), bytes(changed)


def test_all_move_alike_by_the_weighted_mean(cohort):
    for number in (1, 2, 3):
        whole_round(cohort, number)
        digests = {adapter_digest(context.adapter(number)) for context in cohort.domains.values()}
        assert len(digests) == 1
        assert cohort.moved(FIRST, number) == pytest.approx(0.006, abs=2e-4)
        scales = {context.scales(number + 1) for context in cohort.domains.values()}
        assert len(scales) == 1


def test_weights_below_one_change_nothing_in_the_mean_of_equals(cohort):
    whole_round(cohort, 1, weight=0.25)
    assert cohort.moved(FIRST, 1) == pytest.approx(0.006, abs=4e-4)


def test_sealing_and_opening_again_changes_nothing(cohort):
    updates = cohort.seal(1, CHANGES)
    assert cohort.seal(1, CHANGES) == updates
    manifest, data = cohort.aggregate(1, updates)
    cohort.open(FIRST, manifest, data)
    before = cohort.domains[FIRST].ledger.entries()
    cohort.open(FIRST, manifest, data)
    assert cohort.domains[FIRST].ledger.entries() == before


def test_a_round_has_one_weight_and_one_training_output(cohort):
    cohort.seal(1, CHANGES)
    cohort.rekey(2)
    with pytest.raises(RefusedError, match="Another weight was asked for in round 1"):
        cohort.seal(1, CHANGES, attempt=2, weight=0.5)
    assert [len(cohort.facts(email, "update.sealed")) for email in MEMBERS] == [1, 1, 1]
    whole_round(cohort, 1, CHANGES | {FIRST: 0.018}, attempt=2)  # what its code wrote later is not looked at
    assert cohort.moved(FIRST, 1) == pytest.approx(0.006, abs=2e-4)


def test_what_was_cut_off_is_sent_in_the_next_round_and_said_once(tmp_path, ada):
    cohort = Cohort(tmp_path, ada, clip=0.005)
    whole_round(cohort, 1, {FIRST: 0.007, SECOND: 0.007, THIRD: 0.007})
    assert cohort.moved(FIRST, 1) == pytest.approx(0.005, abs=1e-4)
    assert cohort.facts(FIRST, "update.sealed")[0]["clipped"] == 1.0
    assert ["100.0% of round 1's update were over the clip" in line for line in cohort.said] == [True] * 3
    whole_round(cohort, 2, dict.fromkeys(MEMBERS, 0.0))
    assert len(cohort.said) == 3
    assert cohort.moved(FIRST, 2) == pytest.approx(0.002, abs=1e-4)
    assert cohort.facts(FIRST, "update.sealed")[1]["clipped"] == 0.0


def test_the_residual_is_of_the_update_that_entered_the_last_sum(cohort):
    context = cohort.domains[FIRST]
    assert context.residual(1) is None
    cohort.seal(1, CHANGES)
    cohort.rekey(2)
    whole_round(cohort, 1, attempt=2)
    assert context.residual(2) == context.folder.residual_path(1, 2)
    updates = cohort.seal(2, CHANGES, attempt=2)
    manifest, data = cohort.aggregate(2, {email: updates[email] for email in (SECOND, THIRD)}, attempt=2)
    cohort.open(SECOND, manifest, data)
    assert cohort.domains[SECOND].residual(3) == cohort.domains[SECOND].folder.residual_path(2, 2)
    cohort.open(FIRST, manifest, data)  # it sealed, but its update is in no sum
    assert context.residual(3) == context.folder.residual_path(1, 2)
    assert context.residual(3).stat().st_mode & 0o077 == 0


def test_a_tampered_sum_retires_the_key_and_a_new_one_takes_the_round_again(cohort):
    manifest, data = cohort.aggregate(1, cohort.seal(1, CHANGES))
    cohort.open(SECOND, manifest, data)
    bad, changed = tampered(manifest, data)
    for _ in range(2):
        with pytest.raises(TamperedError, match="does not hold what its members sealed"):
            cohort.open(FIRST, bad, changed)
        (cohort.domains[FIRST].folder.retired_key_path(1)).replace(
            cohort.domains[FIRST].folder.key_path
        )  # as a kill would
    cohort.domains[FIRST].key_room.retire()
    assert len(cohort.facts(FIRST, "aggregate.refused")) == 1
    assert len(cohort.facts(FIRST, "key.retired")) == 1
    with pytest.raises(RefusedError, match="retired the study's key"):
        cohort.open(FIRST, manifest, data)  # not even the right one, with that key
    assert not cohort.domains[FIRST].folder.adapter(1).exists()

    cohort.rekey(2)
    first_sum = adapter_digest(cohort.domains[SECOND].adapter(1))
    _, data = whole_round(cohort, 1, attempt=2)
    # The same changes, rounded alike: whoever opened the first sum learns nothing new from the second.
    assert {adapter_digest(context.adapter(1)) for context in cohort.domains.values()} == {first_sum}
    assert [fact["attempt"] for fact in cohort.facts(SECOND, "aggregate.opened")] == [1, 2]
    with pytest.raises(UntrustedError, match="A later sum of that round was opened"):
        cohort.open(SECOND, manifest, data)
    assert np.isclose(cohort.moved(FIRST, 1), 0.006, atol=2e-4)
    assert not any(name.startswith("update-") for name in cohort.relay.data)


def test_another_sum_of_an_opened_attempt_is_refused(cohort):
    manifest, data = whole_round(cohort, 1)
    others = tuple(update for update in manifest.updates if update.header.member != FIRST)
    with pytest.raises(UntrustedError, match="Another sum was opened"):
        cohort.open(FIRST, manifest.model_copy(update={"updates": others}), data)


def test_a_sum_of_another_round_is_refused(cohort):
    manifest, data = whole_round(cohort, 1)
    blob = cohort.relay.send("", "sum", data)
    ticket = cohort.ticket(FIRST, "train", 3, 1, aggregate=manifest, aggregate_blob=blob)
    with pytest.raises(UntrustedError, match="another round"):
        Opening(cohort.domains[FIRST]).open(ticket)


def test_what_is_wrong_with_data_stays_at_the_domain():
    ticket = Ticket(study="0" * 64, round=1, kind="train", attempt=1, member=MEMBERS[0])
    secret = "The task readmission has an empty class among 7 training examples (yes 0, no 7)"
    told = failure(ticket, "1" * 64, MEMBERS[0], DataError(secret))
    assert told.status == "failed"
    assert "stays at the domain" in told.reason
    assert not any(part in told.model_dump_json() for part in ("empty class", "yes 0", "7 training"))
    assert failure(ticket, "1" * 64, MEMBERS[0], RefusedError("It was revoked")).reason.startswith("It was revoked")
