"""The split: which patients a model learns from, and which it is judged on, who came later."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fedpriv.errors import DataError
from fedpriv.files import sha256_hex

SplitKind = Literal["patient-and-time", "patient"]


@dataclass(frozen=True)
class Split:
    """Two sides without a patient in common.

    Attributes
    ----------
    train, heldout : tuple of int
        Patients of each side, in the order of a hash, which tells nothing about their ids.
    since : datetime.datetime or None
        Admissions of held-out patients count from this moment on; None: all of them do.
    left_out : int
        Earlier admissions of held-out patients, which are on neither side.
    """

    train: tuple[int, ...]
    heldout: tuple[int, ...]
    since: datetime.datetime | None = None
    left_out: int = 0

    def side(
        self, subject: int, admitted: datetime.datetime, heldout: frozenset[int]
    ) -> Literal["train", "heldout", ""]:
        """Return the side of one admission; ``""`` for an earlier one of a held-out patient.

        Parameters
        ----------
        heldout : frozenset of int
            :attr:`heldout`, to be looked up in.
        """
        if subject not in heldout:
            return "train"
        return "heldout" if self.since is None or admitted >= self.since else ""


def split_by_time(
    admitted: Mapping[int, Sequence[datetime.datetime]], *, heldout_fraction: float, seed: int = 0
) -> Split:
    """Hold out the patients with the latest last admissions, with only what is as late.

    A moment is chosen so that about ``heldout_fraction`` of the patients (rounded, at least one, never all) have an
    admission at or after it. They are held out with these admissions; their earlier ones are on no side. The others,
    who have no admission after it, are trained on. So no patient is on both sides, and no held-out admission is before
    one that is trained on. Patients whose last admissions are at the very same moment are divided by SHA-256 of seed
    and id.

    The moment depends on all patients together, as any split that keeps a share does: another patient may change on
    which side one that is near it falls. Where dates are shifted patient by patient, as in MIMIC-III, the order between
    patients is that of the shifted dates: the split is by patient, and by time in its form only.

    Parameters
    ----------
    admitted : Mapping[int, Sequence[datetime.datetime]]
        The admissions of each patient that are told.
    heldout_fraction : float
        Above 0 and below 1.
    seed : int
        Decides between equal moments.

    Raises
    ------
    DataError
        If there are fewer than two patients.
    """
    last = {subject: max(times) for subject, times in admitted.items() if times}
    order = {subject: place for place, subject in enumerate(_hashed(last, seed))}
    latest = sorted(last, key=lambda subject: (last[subject], order[subject]), reverse=True)
    held = latest[: _count(len(latest), heldout_fraction)]
    since = min(last[subject] for subject in held)
    return Split(
        train=tuple(sorted(latest[len(held) :], key=order.__getitem__)),
        heldout=tuple(sorted(held, key=order.__getitem__)),
        since=since,
        left_out=sum(time < since for subject in held for time in admitted[subject]),
    )


def split_by_patient(subject_ids: Iterable[int], *, heldout_fraction: float, seed: int = 0) -> Split:
    """Hold out the first ``heldout_fraction`` of the patients (rounded, at least one, never all) in a hash's order.

    The order is that of SHA-256 of seed and id: unlike a threshold on the hash, this never leaves a side of a small
    shard empty.

    Raises
    ------
    DataError
        If there are fewer than two patients.
    """
    ordered = _hashed(subject_ids, seed)
    count = _count(len(ordered), heldout_fraction)
    return Split(train=tuple(ordered[count:]), heldout=tuple(ordered[:count]))


def _hashed(subject_ids: Iterable[int], seed: int) -> list[int]:
    return sorted(set(subject_ids), key=lambda subject: sha256_hex(f"{seed}:{subject}".encode()))


def _count(patients: int, heldout_fraction: float) -> int:
    if patients < 2:
        raise DataError(
            f"empty shard: {patients} patient(s) with an admission cannot be split into train and held-out",
            kept="Nothing was written",
            todo="use tables with at least two patients, or fewer --domains",
        )
    if not 0 < heldout_fraction < 1:
        raise DataError(f"heldout_fraction is {heldout_fraction}", todo="choose a share above 0 and below 1")
    return min(max(round(patients * heldout_fraction), 1), patients - 1)
