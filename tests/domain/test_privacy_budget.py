import itertools
import os
import signal

import pytest

from fedpriv.domain.accountant import Mechanism, epsilon_of
from fedpriv.domain.ledger import Ledger
from fedpriv.domain.privacy_budget import (
    CHARGED,
    Charge,
    PrivacyBudget,
    next_mechanism,
    planned_epsilon,
    planned_mechanism,
)
from fedpriv.errors import RefusedError, UntrustedError
from fedpriv.study.plan import TrainingChoice
from fedpriv.study.privacy import PrivacyChoice

PATIENTS = 62


@pytest.fixture
def private_plan(plan):
    training = TrainingChoice(rounds=3, steps=4, batch_size=16)
    return plan.model_copy(update={"training": training, "privacy": PrivacyChoice(epsilon=8.0)})


@pytest.fixture
def budget(domain):
    return PrivacyBudget(domain.ledger)


def charge(budget, plan, *, study="s", number=1, start="a", dataset="mimic-iii", limit=None):
    return budget.charge(plan, study, number, start, dataset=dataset, patients=PATIENTS, budget=limit)


def test_all_rounds_come_to_the_plan_s_epsilon_and_no_more(budget, private_plan):
    charges = [charge(budget, private_plan, number=number, start=str(number)) for number in (1, 2, 3)]
    assert len({c.mechanism for c in charges}) == 1
    assert charges[0].mechanism == planned_mechanism(private_plan, PATIENTS)
    totals = [c.epsilon_study for c in charges]
    assert totals == sorted(totals)
    assert 7.9 < totals[-1] <= 8
    assert totals[-1] == pytest.approx(planned_epsilon(private_plan, PATIENTS))
    assert budget.epsilon_of_study("s", PATIENTS) == pytest.approx(totals[-1])
    assert budget.epsilon_of_dataset("mimic-iii", PATIENTS) == pytest.approx(totals[-1])


def test_the_same_round_from_the_same_adapter_is_charged_once(budget, private_plan, domain):
    first = charge(budget, private_plan)
    assert charge(budget, private_plan) == Charge.from_facts(first.as_facts())
    assert [entry.kind for entry in domain.ledger.entries()].count(CHARGED) == 1
    assert budget.charge_of("s", 1, "a") == Charge.from_facts(first.as_facts())
    assert budget.charge_of("s", 1, "b") is None


def test_training_again_from_another_adapter_is_another_charge_and_the_rest_gets_more_noise(budget, private_plan):
    first = charge(budget, private_plan)
    again = charge(budget, private_plan, number=1, start="b")
    rest = [charge(budget, private_plan, number=number, start=str(number)) for number in (2, 3)]
    assert again.mechanism.noise_multiplier > first.mechanism.noise_multiplier
    assert len({c.mechanism for c in rest}) == 1
    assert 7.9 < rest[-1].epsilon_study <= 8 * (1 + 1e-6)
    with pytest.raises(RefusedError, match="epsilon of 8 is spent"):
        charge(budget, private_plan, number=3, start="b")


def test_studies_on_the_same_data_count_together_and_the_budget_stops_them(budget, private_plan, domain):
    for number in (1, 2, 3):
        charge(budget, private_plan, number=number, limit=10.0)
    entries = len(domain.ledger.entries())
    with pytest.raises(RefusedError, match="over this domain's budget of 10") as refused:
        for number in (1, 2, 3):
            charge(budget, private_plan, study="t", number=number, limit=10.0)
    assert "nothing was charged" in str(refused.value)
    charged = [c for c in budget.charges() if c.study == "t"]
    assert all(c.epsilon_dataset <= 10 for c in charged)
    assert len(domain.ledger.entries()) == entries + len(charged)
    assert budget.epsilon_of_dataset("mimic-iii", PATIENTS) <= 10
    other = charge(budget, private_plan, study="t", number=3, dataset="eicu", limit=10.0)
    assert other.epsilon_dataset < 8  # other data have a budget of their own


def test_an_approval_may_allow_less_than_the_plan(budget, private_plan):
    settings = {"dataset": "mimic-iii", "patients": PATIENTS, "budget": None, "approved": 6.0}
    budget.charge(private_plan, "s", 1, "1", **settings)
    with pytest.raises(RefusedError, match="over the approved 6"):
        for number in (2, 3):
            budget.charge(private_plan, "s", number, str(number), **settings)
    assert budget.epsilon_of_study("s", PATIENTS) <= 6


def test_a_budget_that_is_just_enough_is_enough(budget, private_plan):
    exact = planned_epsilon(private_plan, PATIENTS)
    for number in (1, 2, 3):
        charge(budget, private_plan, number=number, limit=exact)


def test_what_a_ledger_entry_says(budget, private_plan, domain):
    charge(budget, private_plan)
    facts = domain.ledger.entries()[-1].facts
    assert facts == {
        "study": "s",
        "dataset": "mimic-iii",
        "round": 1,
        "start": "a",
        "unit": "patient",
        "noise_multiplier": facts["noise_multiplier"],
        "sampling": 16 / PATIENTS,
        "steps": 4,
        "patients": PATIENTS,
        "delta": 1 / PATIENTS,
        "epsilon_study": facts["epsilon_study"],
        "epsilon_dataset": facts["epsilon_study"],
    }
    spent = Mechanism(noise_multiplier=facts["noise_multiplier"], sampling=16 / PATIENTS, steps=4)
    assert facts["epsilon_study"] == pytest.approx(epsilon_of([spent], 1 / PATIENTS), rel=1e-5)


def test_unit_domain_is_one_gaussian_mechanism_a_round(private_plan):
    plan = private_plan.model_copy(update={"privacy": PrivacyChoice(unit="domain", epsilon=8.0)})
    mechanism = planned_mechanism(plan, PATIENTS)
    assert (mechanism.sampling, mechanism.steps) == (1.0, 1)
    assert 7.9 < planned_epsilon(plan, PATIENTS) <= 8


def test_a_small_shard_takes_everybody_in_every_step(private_plan):
    assert planned_mechanism(private_plan, 10).sampling == 1
    with pytest.raises(RefusedError, match="cannot be hidden"):
        planned_mechanism(private_plan, 1)


def test_without_a_privacy_section_nothing_is_charged(budget, plan):
    with pytest.raises(RefusedError, match="no privacy section"):
        charge(budget, plan)


def test_a_changed_ledger_is_no_budget(budget, private_plan, domain):
    charge(budget, private_plan)
    path = domain.folder.ledger_path
    path.write_bytes(path.read_bytes().replace(b'"round":1', b'"round":2'))
    with pytest.raises(UntrustedError, match="was changed"):
        PrivacyBudget(domain.ledger).charges()


def test_next_mechanism_does_not_fall_short_of_a_round(private_plan):
    charged = [
        Charge(
            study="s",
            dataset="d",
            round=number,
            start="a",
            unit="patient",
            mechanism=planned_mechanism(private_plan, PATIENTS),
            patients=PATIENTS,
            epsilon_study=0,
            epsilon_dataset=0,
        )
        for number in (1, 2)
    ]
    assert next_mechanism(private_plan, PATIENTS, 3, charged) == charged[0].mechanism


def charge_in_a_process_that_dies(domain, plan, moment):
    """Fork, charge, and die without warning when the ledger meets the disk the ``moment``-th time; say if it did."""
    pid = os.fork()
    if pid == 0:
        calls = itertools.count(1)

        def dying(real):
            def call(*arguments):
                if next(calls) == moment:
                    if real.__name__ == "write":
                        real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments)

            return call

        try:
            for name in ("write", "fsync", "ftruncate"):
                setattr(os, name, dying(getattr(os, name)))
            charge(PrivacyBudget(ledger_of(domain)), plan)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def ledger_of(domain):
    return Ledger(domain.folder.ledger_path, domain.ledger._sign, domain.ledger._check)


def test_kill_9_at_any_moment_loses_no_epsilon_and_counts_none_twice(domain, private_plan):
    expected = planned_mechanism(private_plan, PATIENTS)
    moments = itertools.takewhile(
        lambda moment: charge_in_a_process_that_dies(domain, private_plan, moment), itertools.count(1)
    )
    assert len(list(moments)) >= 2
    assert [c.mechanism for c in PrivacyBudget(ledger_of(domain)).charges()] == [expected]
