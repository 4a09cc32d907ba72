"""Unit domain: every attempt of a round seals the same noised update, and nothing is sealed that was not charged."""

import numpy as np
import pytest

from fedpriv.domain.gatekeeper import privatise
from fedpriv.domain.privacy_budget import PrivacyBudget
from fedpriv.domain.sealing import Sealing
from fedpriv.errors import RefusedError
from fedpriv.study.privacy import PrivacyChoice
from fedpriv.training.adapter import adapter_digest, flatten, load_state
from tests.domain.cohort import MEMBERS, Cohort


@pytest.fixture
def cohort(tmp_path, ada):
    return Cohort(tmp_path, ada, clip=5.0, privacy=PrivacyChoice(unit="domain", epsilon=8.0, clip=0.5))


def charge(cohort, email):
    context = cohort.domains[email]
    start = adapter_digest(context.adapter(0))[:16]
    budget = PrivacyBudget(context.ledger)
    return budget.charge(context.plan, context.study, 1, start, dataset="d", patients=50, budget=None)


def noised(cohort, email):
    context = cohort.domains[email]
    return context.folder.update_path(1, adapter_digest(context.adapter(0))[:16])


def test_what_was_not_charged_is_not_sealed(cohort):
    with pytest.raises(RefusedError, match="was not charged"):
        cohort.seal(1, {MEMBERS[0]: 0.01})


def test_every_attempt_seals_the_same_noise_and_the_sum_opens_to_it(cohort):
    charges = {email: charge(cohort, email) for email in MEMBERS}
    updates = cohort.seal(1, dict.fromkeys(MEMBERS, 0.01))
    first = {email: noised(cohort, email).read_bytes() for email in MEMBERS}
    assert noised(cohort, MEMBERS[0]).stat().st_mode & 0o777 == 0o600
    cohort.seal(1, dict.fromkeys(MEMBERS, 0.01), attempt=2)
    assert {email: noised(cohort, email).read_bytes() for email in MEMBERS} == first
    drawn = [flatten(load_state(noised(cohort, email))) for email in MEMBERS]
    deviation = charges[MEMBERS[0]].mechanism.noise_multiplier * 0.5
    assert float(np.std(drawn)) == pytest.approx(deviation, rel=0.25)
    manifest, data = cohort.aggregate(1, updates)
    cohort.open(MEMBERS[0], manifest, data)
    assert cohort.moved(MEMBERS[0], 1) == pytest.approx(float(np.mean(drawn)), abs=0.02)


def test_a_kill_before_the_noise_is_on_the_disk_leaves_nothing(cohort, monkeypatch):
    email = MEMBERS[0]
    charge(cohort, email)
    monkeypatch.setattr(
        "fedpriv.domain.updates.save_state", lambda state, path: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        cohort.seal(1, {email: 0.01})
    assert not noised(cohort, email).exists()
    monkeypatch.undo()
    cohort.seal(1, {email: 0.01})
    before = noised(cohort, email).read_bytes()
    monkeypatch.setattr(Sealing, "_record", lambda self, sealed: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cohort.seal(1, {email: 0.01}, attempt=2)
    assert noised(cohort, email).read_bytes() == before


@pytest.mark.parametrize("length", [0.0, 0.1, 1.0, 100.0])
def test_an_update_is_clipped_to_the_bound_before_the_noise(length):
    update = np.zeros(1000, np.float32)
    update[3] = length
    clipped = privatise(update, clip=0.5, noise_multiplier=0.0)
    assert clipped.dtype == np.float32
    assert np.linalg.norm(clipped) == pytest.approx(min(length, 0.5))
    noisy = privatise(update, clip=0.5, noise_multiplier=2.0)
    assert np.std(noisy) == pytest.approx(1.0, rel=0.15)
