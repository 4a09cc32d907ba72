"""Weighing a round: what is known of its members, the plan's rule, and the factors that they seal with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fedpriv.aggregation import MemberFacts, WeightFunction, balanced_steps, factors, relative_bandwidths, weights_for
from fedpriv.researcher.answers import metric
from fedpriv.researcher.courier import Courier
from fedpriv.researcher.events import Event, Weighed
from fedpriv.researcher.steering import SteeringFile
from fedpriv.researcher.study_folder import StudyFolder
from fedpriv.study import Result
from fedpriv.study.aggregation import RULES_WITH_LOSSES

_ROUND_MESSAGES = 8
"""Messages between a domain and the store in a round beside the update and the sum, about."""


class Weighing:
    """Decides how much each update of a round counts, and how many steps each domain takes."""

    def __init__(
        self,
        folder: StudyFolder,
        courier: Courier,
        emit: Callable[[Event], None],
        custom: WeightFunction | None = None,
    ) -> None:
        self._folder, self._plan, self._study, self._emit = folder, courier.plan, courier.study, emit
        self._custom, self._steering = custom, SteeringFile(folder.state)

    @property
    def needs_losses(self) -> bool:
        """Whether the plan's rule needs what training gives, so that updates are sealed after all have trained."""
        return self._plan.aggregation.weights in RULES_WITH_LOSSES

    def factors(
        self,
        number: int,
        results: Mapping[str, Result],
        prepared: Mapping[str, Result],
        trained: Mapping[str, int] | None = None,
    ) -> dict[str, float]:
        """Return what each member multiplies its update of a round with.

        Parameters
        ----------
        results : mapping of str to Result
            The answers to the train tickets; those to the prepare tickets where no losses are needed.
        prepared : mapping of str to Result
            The answers to the prepare tickets, for what others leave out.
        trained : mapping of str to int
            The round that each one trained for, where that is not this one.
        """
        steering, choice = self._steering.read(), self._plan.aggregation
        if steering.alpha is not None:
            choice = choice.model_copy(update={"alpha": steering.alpha})
        bandwidths = relative_bandwidths({email: self._folder.link(email) for email in results})
        staleness = {email: number - round_ for email, round_ in (trained or {}).items() if round_ < number}
        facts = {
            email: self._facts(result, prepared.get(email), bandwidths[email], staleness.get(email, 0))
            for email, result in results.items()
        }
        weights = weights_for(choice, facts, self._custom, discount=self._plan.schedule.discount)
        self._emit(
            Weighed(
                study=self._study,
                round=number,
                rule=choice.weights,
                alpha=choice.alpha,
                shares=weights,
                bandwidths={email: round(bandwidth, 4) for email, bandwidth in bandwidths.items()},
                staleness=staleness,
            )
        )
        return factors(weights)

    def steps(self, members: tuple[str, ...], before: Mapping[str, Result], update_bytes: int) -> dict[str, int]:
        """Return how many steps each domain takes in a round, or nothing where all take the plan's.

        Parameters
        ----------
        before : mapping of str to Result
            Each one's newest answer to a train ticket: what a step takes there. Unknown before the first.
        update_bytes : int
            Size of a sealed update, about; the sum is as large.
        """
        steps = self._plan.training.steps
        taken = {e: before[e].seconds.get("train", 0.0) for e in members if e in before}
        if self._plan.schedule.local_steps == "same" or len(taken) < len(members) or not all(taken.values()):
            return {}
        last = {email: self._steps_of(before[email]) for email in members}
        transfer = {
            email: self._folder.link(email).seconds(update_bytes, update_bytes, _ROUND_MESSAGES) for email in members
        }
        return balanced_steps({e: taken[e] / last[e] for e in members}, transfer, steps=steps)

    def _steps_of(self, result: Result) -> int:
        asked = self._folder.asked(result.round, self._attempt)
        return (asked.steps if asked else {}).get(result.member, self._plan.training.steps)

    @property
    def _attempt(self) -> int:
        keys = self._folder.keys()
        return keys.generation if keys else 1

    def _facts(self, result: Result, prepared: Result | None, bandwidth: float, staleness: int) -> MemberFacts:
        counted = result if "examples" in result.metrics or prepared is None else prepared
        loss = result.metrics.get("train_loss")
        if loss is None:
            measured = result if "heldout_loss" in result.metrics or prepared is None else prepared
            loss = metric(measured, "heldout_loss")
        return MemberFacts(
            examples=int(metric(counted, "examples")), loss=loss, bandwidth=bandwidth, staleness=staleness
        )
