"""The privacy budget: what a domain's data have cost in epsilon, over all studies, and what a round may still cost.

Nothing but the ledger holds it. A round is charged before its training starts, under a name that stands in the ledger
once, so that a kill at any moment loses no epsilon and counts none twice. What is charged is never given back, also
when training fails: nobody can tell then what was seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedpriv.domain.accountant import Mechanism, epsilon_of, noise_multiplier_for
from fedpriv.domain.ledger import Ledger
from fedpriv.errors import RefusedError
from fedpriv.study import Plan
from fedpriv.study.privacy import PrivacyChoice, PrivacyUnit
from fedpriv.training.private_round import PrivateSteps

CHARGED = "epsilon.charged"
_DIGITS = 6
_MOST_NOISE = 10.0
"""Times the planned noise: more of it would leave nothing of what is learnt."""

_SLACK = 1 + 1e-9
"""Room for the last bit when the same sum is computed twice."""


@dataclass(frozen=True, kw_only=True)
class Charge:
    """One round's entry in the ledger.

    Attributes
    ----------
    study, dataset : str
        The study's id; the name of the dataset in ``domain.yaml``.
    round : int
        From 1.
    start : str
        First digits of the digest of the adapter that the round starts from: training again from another one is
        another charge.
    unit : str
        ``patient`` or ``domain``.
    mechanism : Mechanism
        What is done to the data.
    patients : int
        n: training patients; delta is 1 / n.
    epsilon_study, epsilon_dataset : float
        Of the study, and of the dataset over all studies, this round included.
    """

    study: str
    dataset: str
    round: int
    start: str
    unit: PrivacyUnit
    mechanism: Mechanism
    patients: int
    epsilon_study: float
    epsilon_dataset: float

    @property
    def once(self) -> str:
        """The name under which it stands in the ledger once."""
        return once_name(self.study, self.round, self.start)

    def as_facts(self) -> dict[str, Any]:
        """Return it as the facts of a ledger entry."""
        return {
            "study": self.study,
            "dataset": self.dataset,
            "round": self.round,
            "start": self.start,
            "unit": self.unit,
            "noise_multiplier": self.mechanism.noise_multiplier,
            "sampling": self.mechanism.sampling,
            "steps": self.mechanism.steps,
            "patients": self.patients,
            "delta": delta_of(self.patients),
            "epsilon_study": _rounded(self.epsilon_study),
            "epsilon_dataset": _rounded(self.epsilon_dataset),
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Charge:
        """Read what :meth:`as_facts` wrote."""
        own = {name: facts[name] for name in ("study", "dataset", "round", "start", "unit", "patients")}
        parts = {name: facts[name] for name in ("noise_multiplier", "sampling", "steps")}
        totals = {name: facts[name] for name in ("epsilon_study", "epsilon_dataset")}
        return cls(**own, **totals, mechanism=Mechanism(**parts))


def once_name(study: str, round_number: int, start: str) -> str:
    """Return the name of a round's charge."""
    return f"{study}/epsilon/{round_number}/{start}"


def delta_of(patients: int) -> float:
    """Return delta: one over the number of training patients."""
    return 1.0 / patients


@dataclass(frozen=True, kw_only=True)
class PrivacyCost:
    """What a plan would cost at a domain, for the person who decides.

    Attributes
    ----------
    planned : float
        Epsilon of the whole plan.
    delta : float
        One over the number of training patients.
    spent : float
        Epsilon of the dataset so far, over all studies.
    budget : float or None
        Epsilon that the dataset may come to.
    """

    planned: float
    delta: float
    spent: float
    budget: float | None


@dataclass(frozen=True)
class PrivacyBudget:
    """Reads and charges one domain's ledger.

    *Guarantee*: the epsilon that the ledger comes to is never below what was done. A study is not charged beyond the
    epsilon of its plan, nor a dataset beyond its budget.
    *Assumption*: one process of the domain carries out tickets at a time (``serve.lock``). The ledger is whole; a
    ledger that was put back from an older backup has forgotten what came after it.
    """

    ledger: Ledger

    def charges(self) -> list[Charge]:
        """Return all charges in their order, from a ledger that was verified.

        Raises
        ------
        UntrustedError
            If an entry of the ledger was changed, removed or moved.
        """
        return [Charge.from_facts(entry.facts) for entry in self.ledger.verified() if entry.kind == CHARGED]

    def charge_of(self, study: str, round_number: int, start: str) -> Charge | None:
        """Return the charge of a round from a starting adapter, or None."""
        name = once_name(study, round_number, start)
        return next((charge for charge in self.charges() if charge.once == name), None)

    def charge(
        self,
        plan: Plan,
        study: str,
        round_number: int,
        start: str,
        *,
        dataset: str,
        patients: int,
        budget: float | None,
        approved: float | None = None,
    ) -> Charge:
        """Charge a round before it starts, once; a second call with the same names returns what was charged.

        Parameters
        ----------
        plan : Plan
            With a privacy section.
        start : str
            Digest of the adapter that the round starts from.
        dataset : str
            The dataset's name in ``domain.yaml``: charges of every study on it count together.
        patients : int
            Its training patients.
        budget : float, optional
            Epsilon that the dataset may come to over all studies; None is no limit.
        approved : float, optional
            Epsilon that the study may come to by the data owner's approval; None leaves the plan's.

        Raises
        ------
        RefusedError
            If the study would come to more than its plan or its approval says, or the dataset to more than its budget.
            Nothing is charged then.
        """
        charges = self.charges()
        name = once_name(study, round_number, start)
        for charge in charges:
            if charge.once == name:
                return charge
        of_study = [charge for charge in charges if charge.study == study]
        mechanism = next_mechanism(plan, patients, round_number, of_study)
        delta = delta_of(patients)
        epsilon_study = epsilon_of([*(other.mechanism for other in of_study), mechanism], delta)
        if approved is not None and epsilon_study > approved * _SLACK:
            raise RefusedError(
                f"The round would bring the study's epsilon to {epsilon_study:.4g}, over the approved {approved:g}",
                kept="Nothing was run and nothing was charged",
                todo="ask the data owner to approve more",
            )
        of_data = [charge.mechanism for charge in charges if charge.dataset == dataset]
        epsilon_dataset = epsilon_of([*of_data, mechanism], delta)
        if budget is not None and epsilon_dataset > budget * _SLACK:
            raise RefusedError(
                f"The round would bring the data's epsilon to {epsilon_dataset:.4g}, over this domain's budget of "
                f"{budget:g} (spent so far: {epsilon_of(of_data, delta):.4g})",
                kept="Nothing was run and nothing was charged",
                todo="ask the data owner, who may raise policy > epsilon in domain.yaml",
            )
        charge = Charge(
            study=study,
            dataset=dataset,
            round=round_number,
            start=start,
            unit=_privacy(plan).unit,
            mechanism=mechanism,
            patients=patients,
            epsilon_study=epsilon_study,
            epsilon_dataset=epsilon_dataset,
        )
        self.ledger.append(CHARGED, once=charge.once, **charge.as_facts())
        return charge

    def last_charge(self, study: str) -> Charge | None:
        """Return the newest charge of a study, whose ``epsilon_study`` is what the study has come to, or None."""
        return next((charge for charge in reversed(self.charges()) if charge.study == study), None)

    def cost(self, plan: Plan, dataset: str, patients: int, budget: float | None) -> PrivacyCost:
        """Return what a plan with a privacy section would cost on a dataset."""
        return PrivacyCost(
            planned=planned_epsilon(plan, patients),
            delta=delta_of(patients),
            spent=self.epsilon_of_dataset(dataset, patients),
            budget=budget,
        )

    def epsilon_of_study(self, study: str, patients: int) -> float:
        """Return epsilon of a study so far at this domain, with delta = 1 / ``patients``."""
        spent = [charge.mechanism for charge in self.charges() if charge.study == study]
        return epsilon_of(spent, delta_of(patients))

    def epsilon_of_dataset(self, dataset: str, patients: int) -> float:
        """Return epsilon of a dataset over all studies so far, with delta = 1 / ``patients``."""
        spent = [charge.mechanism for charge in self.charges() if charge.dataset == dataset]
        return epsilon_of(spent, delta_of(patients))


def planned_mechanism(plan: Plan, patients: int) -> Mechanism:
    """Return what one round of a plan does at a domain with so many training patients, if nothing is done twice.

    Raises
    ------
    RefusedError
        If the shard has fewer than two patients, or the plan no privacy section.
    """
    return next_mechanism(plan, patients, 1, ())


def planned_epsilon(plan: Plan, patients: int) -> float:
    """Return the epsilon that a whole plan will cost at a domain with so many training patients, before it runs."""
    mechanism = planned_mechanism(plan, patients)
    whole = Mechanism(
        noise_multiplier=mechanism.noise_multiplier,
        sampling=mechanism.sampling,
        steps=mechanism.steps * plan.training.rounds,
    )
    return epsilon_of([whole], delta_of(patients))


def next_mechanism(plan: Plan, patients: int, round_number: int, charged: Sequence[Charge]) -> Mechanism:
    """Return what a round does, so that it and all after it fit into the plan's epsilon with what was ``charged``.

    Its noise is that of the first round unless a round was trained again, from another adapter: then the rounds to come
    get more noise.

    Raises
    ------
    RefusedError
        If nothing of the study's epsilon is left, the shard has fewer than two patients, or the plan no privacy.
    """
    privacy, delta = _privacy(plan), delta_of(patients)
    if patients < 2:
        raise RefusedError("One patient alone cannot be hidden among others", kept="Nothing was run")
    steps = privacy.steps(plan.training.steps)
    sampling = privacy.sampling(plan.training.batch_size, patients)
    left = max(1, plan.training.rounds - round_number + 1)
    spent = tuple(charge.mechanism for charge in charged)
    sigma = planned = noise_multiplier_for(
        privacy.epsilon, delta, sampling=sampling, steps=steps * plan.training.rounds
    )
    coming = Mechanism(noise_multiplier=sigma, sampling=sampling, steps=steps * left)
    if spent and epsilon_of((*spent, coming), delta) > privacy.epsilon * _SLACK:
        sigma = noise_multiplier_for(privacy.epsilon, delta, sampling=sampling, steps=steps * left, spent=spent)
    if sigma > _MOST_NOISE * planned or math.isinf(sigma):
        raise RefusedError(
            f"The study's epsilon of {privacy.epsilon:g} is spent at this domain",
            kept="Nothing was run and nothing was charged",
            todo="make a new study with an epsilon of its own",
        )
    return Mechanism(noise_multiplier=_rounded_up(sigma), sampling=sampling, steps=steps)


def private_steps(privacy: PrivacyChoice, mechanism: Mechanism, patients: int) -> PrivateSteps:
    """Return what the training child is told of a round's mechanism (unit patient)."""
    return PrivateSteps(
        noise_multiplier=mechanism.noise_multiplier,
        sampling=mechanism.sampling,
        patients=patients,
        clip=privacy.bound,
        notes_per_patient=privacy.notes_per_patient,
    )


def _privacy(plan: Plan) -> PrivacyChoice:
    if plan.privacy is None:
        raise RefusedError("The plan has no privacy section", kept="Nothing was charged")
    return plan.privacy


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _rounded_up(sigma: float) -> float:
    """Return sigma with six digits, never less of it."""
    unit = 10.0 ** (math.floor(math.log10(sigma)) - _DIGITS + 1)
    return float(f"{math.ceil(sigma / unit) * unit:.{_DIGITS + 2}g}")
