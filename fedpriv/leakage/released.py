"""Membership on a released adapter: was this very note among those that it was trained on?

Two scores, from losses alone. The higher, the likelier a member.

- *By loss*: minus the mean loss of a token. A model foretells what it was trained on better (Yeom et al. 2018, *Privacy
  Risk in Machine Learning*, arXiv 1709.01604). A note that is easy for any model looks like a member, too.
- *Calibrated*: how much better the adapter foretells the note than a reference that never saw it. That takes off how
  easy the note is (Watson et al. 2022, *On the Importance of Difficulty Calibration in Membership Inference Attacks*,
  arXiv 2111.08440). With the base model alone as the reference it needs no further training; with adapters that were
  trained on other notes of the same kind it is stronger. The likelihood ratio attack (Carlini et al. 2022, *Membership
  Inference Attacks From First Principles*, arXiv 2112.03570) fits a distribution to many such references where this
  takes their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedpriv.leakage.above_chance import LEAST_TRIALS
from fedpriv.leakage.losses import gain, losses
from fedpriv.leakage.membership import Membership, membership
from fedpriv.leakage.pursuit import Float64
from fedpriv.leakage.rate import LEAST_CONTROL
from fedpriv.study.plan import LoraChoice
from fedpriv.training.adapter import AdapterState
from fedpriv.training.examples import Example


@dataclass(frozen=True, kw_only=True)
class ReleasedMembership:
    """How well members of a released adapter's training notes are told from others.

    Attributes
    ----------
    found : Membership or None
        None if it was not measured.
    control : Membership
        The same attack where it must succeed.
    """

    found: Membership | None
    control: Membership

    @property
    def measured(self) -> bool:
        """Whether the numbers mean anything."""
        return self.found is not None

    def __str__(self) -> str:
        return "not measured" if self.found is None else f"AUROC {self.found.auroc}"


def loss_scores(model_folder: Path, lora: LoraChoice, adapter: AdapterState, notes: Sequence[Example]) -> Float64:
    """Return minus the mean loss of each note's tokens under the adapter: nats, (notes,).

    Raises
    ------
    FedprivError
        As :func:`fedpriv.leakage.losses.losses`.
    """
    return -losses(model_folder, lora, adapter, notes).mean


def calibrated_scores(
    model_folder: Path,
    lora: LoraChoice,
    adapter: AdapterState,
    notes: Sequence[Example],
    *,
    references: Sequence[AdapterState] = (),
) -> Float64:
    """Return how much better the adapter foretells each note than a reference: nats a token, (notes,).

    Parameters
    ----------
    model_folder, lora, adapter, notes
        As for :func:`fedpriv.leakage.losses.losses`.
    references : sequence of adapters
        As for :func:`fedpriv.leakage.losses.gain`: by default the base model without an adapter.

    Raises
    ------
    FedprivError
        As :func:`fedpriv.leakage.losses.losses`.
    """
    tokens = losses(model_folder, lora, adapter, notes).tokens
    return gain(model_folder, lora, adapter, notes, references) / tokens


def released_membership(
    members: Sequence[float],
    others: Sequence[float],
    *,
    control: tuple[Sequence[float], Sequence[float]],
    seed: int = 0,
) -> ReleasedMembership:
    """Return how well scores tell members from others, or that it was not measured.

    *Guarantee*: where the same score does not tell members from others on an overfitted adapter (an AUROC of 0.8, its
    interval above one half), or there are fewer than five of either, nothing is reported.
    *Limit*: members and others must be notes of the same kind. Where they differ in anything else, such as the year,
    the scores tell that.

    Parameters
    ----------
    members, others : sequence of float
        Scores under the released adapter: of notes that it was trained on, and of other patients' notes.
    control : pair of sequences of float
        The same scores of members and others of an adapter that has learnt its notes by heart
        (:func:`fedpriv.leakage.overfit.overfitted`).
    seed : int
        Of the resampling.

    Raises
    ------
    InputError
        If there is no member or no other.
    """
    reached = membership(*control, seed=seed)
    works = reached.auroc.value >= LEAST_CONTROL and reached.auroc.low > 0.5
    enough = min(len(members), len(others), *map(len, control)) >= LEAST_TRIALS
    return ReleasedMembership(
        found=membership(members, others, seed=seed) if works and enough else None, control=reached
    )
