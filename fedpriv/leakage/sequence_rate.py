"""How much of texts comes back in order, above what the same attack makes of updates from other texts.

As :mod:`fedpriv.leakage.rate`: an attack that fails where it must succeed measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedpriv.errors import InputError
from fedpriv.leakage.above_chance import AboveChance
from fedpriv.leakage.rouge import rouge_l

LEAST_ROUGE = 0.6
"""ROUGE-L that an attack must reach on its positive control."""


@dataclass(frozen=True, kw_only=True)
class SequenceTrial:
    """One attack on one update.

    Attributes
    ----------
    truth : sequence of int
        The passage that the update was computed from, without its last token.
    guess : sequence of int
        What the attack read; empty if it read nothing.
    other : sequence of int
        What the same attack read from the same party's view of an update from another passage.
    """

    truth: Sequence[int]
    guess: Sequence[int]
    other: Sequence[int]

    @property
    def above_chance(self) -> float:
        """ROUGE-L of the guess, minus that of the one from another passage: in -1 to 1."""
        return rouge_l(self.guess, self.truth) - rouge_l(self.other, self.truth)


class SequenceRate(AboveChance):
    """Mean ROUGE-L; that of the control with chance."""


def sequence_rate(trials: Sequence[SequenceTrial], *, control: Sequence[SequenceTrial], seed: int = 0) -> SequenceRate:
    """Return the mean ROUGE-L above chance, with a bootstrap interval over trials.

    *Guarantee*: where the positive control of the same run fails, or there are too few trials, nothing is reported.
    *Limit*: a rate of zero is about this attack. A better one may find more; it says what can be recovered at least.

    Parameters
    ----------
    trials : sequence of SequenceTrial
        The attack on the views in question, one for each passage.
    control : sequence of SequenceTrial
        The same attack on plain single gradients of the same passages.
    seed : int
        Of the resampling.

    Raises
    ------
    InputError
        If there is no trial or no control.
    """
    if not trials or not control:
        raise InputError("A rate needs trials and a control", todo="attack some passages, and their plain gradients")
    return SequenceRate.judged(
        np.array([trial.above_chance for trial in trials]),
        control=np.array([rouge_l(trial.guess, trial.truth) for trial in control]),
        beyond=np.array([trial.above_chance for trial in control]),
        least=LEAST_ROUGE,
        seed=seed,
    )
