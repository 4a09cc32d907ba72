"""What a domain's data have cost in epsilon, study by study, and what is left: as one value for any screen."""

from __future__ import annotations

from fedpriv.domain.domain import Domain
from fedpriv.domain.privacy_budget import Charge, PrivacyBudget
from fedpriv.study.names import Sha256
from fedpriv.study.privacy import PrivacyUnit
from fedpriv.study.section import Section


class StudySpent(Section):
    """What one study has spent.

    Attributes
    ----------
    unit : str
        Whom it protects: ``patient`` or ``domain``.
    rounds : int
        That were charged.
    epsilon : float
        Of the study so far, by itself.
    patients : int
        Training patients at its last round; delta is one over it.
    """

    study: Sha256
    unit: PrivacyUnit
    rounds: int
    epsilon: float
    patients: int


class BudgetGauge(Section):
    """What a dataset has spent over all studies.

    Attributes
    ----------
    spent : float
        Epsilon of all studies together: less than the sum of theirs, for they are composed.
    budget, left : float or None
        ``policy > epsilon`` of ``domain.yaml``, and what of it is left; None where there is no budget.
    """

    dataset: str
    studies: tuple[StudySpent, ...] = ()
    spent: float = 0.0
    budget: float | None = None
    left: float | None = None


def budget_gauge(domain: Domain) -> BudgetGauge:
    """Read what was spent from a ledger that is verified on the way.

    Raises
    ------
    UntrustedError
        If an entry of the ledger was changed, removed or moved.
    """
    dataset, limit = domain.config.data.dataset, domain.config.policy.epsilon
    book = PrivacyBudget(domain.ledger)
    charges = [charge for charge in book.charges() if charge.dataset == dataset]
    spent = book.epsilon_of_dataset(dataset, charges[-1].patients) if charges else 0.0
    return BudgetGauge(
        dataset=dataset,
        studies=tuple(_of_study(study, charges) for study in dict.fromkeys(charge.study for charge in charges)),
        spent=round(spent, 6),
        budget=limit,
        left=None if limit is None else max(0.0, round(limit - spent, 6)),
    )


def _of_study(study: str, charges: list[Charge]) -> StudySpent:
    mine = [charge for charge in charges if charge.study == study]
    last = mine[-1]
    return StudySpent(study=study, unit=last.unit, rounds=len(mine), epsilon=last.epsilon_study, patients=last.patients)
