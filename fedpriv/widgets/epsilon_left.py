"""What of a study's epsilon is left at a domain, as the researcher can know it: the plan, and the rounds trained."""

from __future__ import annotations

from fedpriv.domain.accountant import Mechanism, epsilon_of
from fedpriv.domain.privacy_budget import delta_of, planned_mechanism
from fedpriv.errors import FedprivError
from fedpriv.study import Plan


def epsilon_spent(plan: Plan, patients: int, rounds: int) -> float | None:
    """Return about what so many rounds of a plan have cost; None where it cannot be known.

    Parameters
    ----------
    patients : int
        That the domain said it has: rounded down, so that the true epsilon is a little smaller. 0 where it did not say.
    """
    if plan.privacy is None or patients < 2:
        return None
    if not rounds:
        return 0.0
    try:
        once = planned_mechanism(plan, patients)
    except FedprivError:
        return None
    done = Mechanism(
        noise_multiplier=once.noise_multiplier,
        sampling=once.sampling,
        steps=once.steps * min(rounds, plan.training.rounds),
    )
    return epsilon_of([done], delta_of(patients))
