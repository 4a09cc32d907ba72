"""Steering a study while it runs, from any process: a small file that the orchestrator reads between its steps."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from pydantic import Field

from fedpriv.errors import PlanError, StudyError
from fedpriv.files import folder_lock, read_json, write_json
from fedpriv.study import Plan, validate_section
from fedpriv.study.aggregation import RULES_WITH_LINKS
from fedpriv.study.section import Section


class Steering(Section):
    """What the researcher asks of a study beside its plan.

    ``paused_after``  begin no round after this one; none: go on
    ``stopped``       end the run as soon as possible; everything is kept
    ``skipped_round`` leave this round without a sum, if it has none yet
    ``alpha``         exponent of the bandwidths in the weights, in place of the plan's
    ``patience_s``    seconds without progress after which a domain is late, in place of the plan's
    """

    paused_after: int | None = Field(default=None, ge=0, le=1000)
    stopped: bool = False
    skipped_round: int | None = Field(default=None, ge=1, le=1000)
    alpha: float | None = Field(default=None, ge=0, le=4)
    patience_s: int | None = Field(default=None, ge=1, le=86_400)

    def lets_begin(self, number: int) -> bool:
        """Say whether a round may begin."""
        return self.paused_after is None or number <= self.paused_after


class SteeringFile:
    """The steering of one study on disk.

    Parameters
    ----------
    folder : Path
        The study's state folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "steering.json"

    def read(self) -> Steering:
        """Return what is asked for now."""
        return Steering.model_validate(read_json(self._path)) if self._path.exists() else Steering()

    def change(self, **changes: object) -> Steering:
        """Change some of it and return the whole, from whichever process.

        Raises
        ------
        StudyError
            If a value is out of range; nothing is changed then.
        """
        with folder_lock(self._folder / "steering.lock", holder="The steering of the study", todo="try again"):
            try:
                values = self.read().model_dump() | changes
                steering = validate_section(Steering, values, source="the steering of the study")
            except PlanError as error:
                raise StudyError(error.what, kept="Nothing was changed", todo="choose another value") from error
            write_json(self._path, steering.model_dump(mode="json"))
        return steering


def require_meaning(plan: Plan, changes: Container[str]) -> None:
    """Refuse to steer by what does nothing under a plan.

    Raises
    ------
    StudyError
        Naming it, with what does something instead.
    """
    aggregation, schedule = plan.aggregation, plan.schedule
    if "alpha" in changes and aggregation.weights not in RULES_WITH_LINKS:
        raise StudyError(
            f"alpha has no meaning with the weights {aggregation.weights}",
            kept="Nothing was changed",
            todo="write weights: paper into the plan before it is submitted, or make another study",
        )
    if "patience_s" in changes and schedule.quorum is None:
        raise StudyError(
            "The patience has no meaning without a quorum, when every domain is waited for",
            kept="Nothing was changed",
            todo="go on without a domain with `fedpriv study exclude`",
        )
