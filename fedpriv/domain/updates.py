"""The updates that this domain trained: kept from the gatekeeper to the one sum that each may enter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedpriv.domain.context import StudyContext
from fedpriv.domain.gatekeeper import check_update, privatise
from fedpriv.domain.privacy_budget import PrivacyBudget
from fedpriv.errors import RefusedError
from fedpriv.study.averaging import alike
from fedpriv.training.adapter import flatten, load_state, save_state, unflatten

_START_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class TrainedUpdate:
    """One update that was kept.

    Attributes
    ----------
    round : int
        The round whose ticket had it trained.
    start : str
        First hex digits of the digest of the adapter that training started from.
    """

    round: int
    start: str


@dataclass(frozen=True)
class Updates:
    """The kept updates of one study at one domain.

    *Guarantee*: an update enters one round's sum at most. It is sealed for another round only while this domain has
    confirmed no sum of the round that it was sealed for before, which it never does afterwards
    (:meth:`require_unmoved`). What leaves is what passed the gatekeeper: training code cannot write where it is kept.
    *Assumption*: the study's folder is not put back to an older state; what was confirmed since would not be known.
    """

    context: StudyContext

    def keep(self, round_number: int, raw: Path) -> None:
        """Check what training wrote for a round, add the noise that the plan wants, and keep the update.

        It is on the disk before it is used first: no kill and no further attempt draws noise on it again, which would
        cost epsilon again. One that is kept already stays.

        Raises
        ------
        GatekeeperError
            If the update may not leave.
        RefusedError
            If a round with privacy was not charged.
        """
        path = self._path(self.trained_for(round_number))
        if not path.exists():
            before = self.context.adapter(round_number - 1)
            update = check_update(raw, before, self.context.plan, round_number)
            save_state(unflatten(self._noised(update, round_number), self.context.sent(before, round_number)), path)

    def trained_for(self, round_number: int) -> TrainedUpdate:
        """Return the update of a round from the adapter that this domain has after the round before."""
        start = self.context.adapter_digest(round_number - 1)[:_START_DIGITS]
        return TrainedUpdate(round=round_number, start=start)

    def late(self, round_number: int) -> list[TrainedUpdate]:
        """Return the kept updates of earlier rounds that no sum can hold any more, if the plan carries them on.

        Only those whose round was opened here without them: until then they may still be summed. And only those of the
        tensors that this round sends; the others wait for theirs.
        """
        schedule = self.context.plan.schedule
        if schedule.is_buffered or schedule.late_updates != "carry":
            return []
        averaging = self.context.plan.averaging
        return [
            update
            for update in self._kept()
            if update.round < round_number and alike(averaging, update.round, round_number) and self._missed(update)
        ]

    def claim(self, update: TrainedUpdate, round_number: int) -> None:
        """Note that an update is sealed in a round, before it is.

        Raises
        ------
        RefusedError
            If none is kept, or this domain confirmed a sum of another round that it was sealed for.
        """
        if not self._path(update).exists():
            raise RefusedError(f"This domain has no trained update of round {update.round}", kept="Nothing was sealed")
        used = self.context.folder.used(update.round, update.start)
        if used and used[-1] == round_number:
            return
        if used and (self._is_confirmed(used[-1]) or round_number in used):
            raise RefusedError(
                f"The update of round {update.round} was sealed for round {used[-1]}", kept="Nothing was sealed"
            )
        self.context.folder.keep_used(update.round, update.start, (*used, round_number))

    def require_unmoved(self, round_number: int) -> None:
        """Refuse to confirm a round after what was sealed for it was sealed for a later one.

        Raises
        ------
        RefusedError
            In words.
        """
        for update in self._kept():
            used = self.context.folder.used(update.round, update.start)
            if round_number in used and used[-1] != round_number:
                raise RefusedError(
                    f"What this domain sealed in round {round_number} was carried on to round {used[-1]}",
                    kept="Nothing was unlocked",
                    todo="sum that round without this domain",
                )

    def read(self, update: TrainedUpdate) -> np.ndarray:
        """Return an update as one vector: float32, shape (P,), tensors in sorted-name order."""
        return flatten(load_state(self._path(update), self.context.sent_layout(update.round)))

    def forget(self, before: int) -> None:
        """Remove the updates that entered the sum of a round before this one, or missed theirs and are not carried."""
        folder = self.context.folder
        drops = self.context.plan.schedule.late_updates == "drop"
        for update in self._kept():
            used = folder.used(update.round, update.start)
            entered = bool(used) and used[-1] < before and self._is_confirmed(used[-1])
            if entered or (drops and update.round < before and self._missed(update)):
                self._path(update).unlink(missing_ok=True)

    def _noised(self, update: np.ndarray, round_number: int) -> np.ndarray:
        privacy = self.context.plan.privacy
        if privacy is None or privacy.unit != "domain":
            return update
        start = self.trained_for(round_number).start
        charge = PrivacyBudget(self.context.ledger).charge_of(self.context.study, round_number, start)
        if charge is None:
            raise RefusedError(f"Round {round_number} was not charged", kept="Nothing was sealed")
        return privatise(update, clip=privacy.bound, noise_multiplier=charge.mechanism.noise_multiplier)

    def _missed(self, update: TrainedUpdate) -> bool:
        used = self.context.folder.used(update.round, update.start)
        sealed_for = used[-1] if used else update.round
        opened = self.context.folder.opened(sealed_for)
        return opened is not None and self.context.member not in opened.members and not self._is_confirmed(sealed_for)

    def _is_confirmed(self, round_number: int) -> bool:
        folder = self.context.folder
        return any(folder.confirmed(round_number, attempt) for attempt in folder.attempts(round_number))

    def _kept(self) -> list[TrainedUpdate]:
        """Return the updates that lie here, oldest first."""
        names = sorted(path.stem for path in self.context.folder.updates.glob("[!.]*.safetensors"))
        return [TrainedUpdate(round=int(name[:4]), start=name[5:]) for name in names]

    def _path(self, update: TrainedUpdate) -> Path:
        return self.context.folder.update_path(update.round, update.start)
