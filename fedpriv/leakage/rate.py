"""The leakage rate: which share of a text's telling tokens an attack names, above what it names without having seen it.

``docs/leakage.md`` gives the definition and its limits. An attack that fails where it must succeed measures nothing:
then the answer is "not measured", never 0 %.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedpriv.errors import InputError
from fedpriv.leakage.above_chance import AboveChance

LEAST_CONTROL = 0.8
"""Share of the telling tokens that an attack must name on its positive control."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One attack on one update.

    Attributes
    ----------
    secret : frozenset of int
        The tokens of the texts that the update was computed from (:func:`fedpriv.leakage.gradients.read_tokens`).
    guesses : sequence of int
        What the attack named, the likeliest first: at least as many as ``secret`` has tokens.
    others : sequence of int
        What the same attack named on the same party's view of an update from other texts.
    """

    secret: frozenset[int]
    guesses: Sequence[int]
    others: Sequence[int]

    def named(self, common: Collection[int], guesses: Sequence[int]) -> float | None:
        """Return the share of the telling tokens within the first guesses, as many as ``secret`` has tokens.

        Returns
        -------
        float or None
            In 0 to 1; None if the texts have no token outside ``common``.
        """
        telling = self.secret - set(common)
        return len(telling & set(guesses[: len(self.secret)])) / len(telling) if telling else None

    def above_chance(self, common: Collection[int]) -> float | None:
        """Return the share that was named, minus the same for the update from other texts: in -1 to 1, or None."""
        own, chance = self.named(common, self.guesses), self.named(common, self.others)
        return None if own is None or chance is None else own - chance


class LeakageRate(AboveChance):
    """The leakage rate, in shares of the telling tokens; ``trials`` counts the texts that have some."""


def leakage_rate(
    trials: Sequence[Trial], *, control: Sequence[Trial], common: Collection[int], seed: int = 0
) -> LeakageRate:
    """Return the mean share of telling tokens named above chance, with a bootstrap interval over trials.

    *Guarantee*: where the positive control of the same run fails, or there are too few trials, nothing is reported.
    *Limit*: a rate of zero is about this attack. A better one may find more; it says what can be recovered at least.

    Parameters
    ----------
    trials : sequence of Trial
        The attack on the views in question, one for each text (and seed).
    control : sequence of Trial
        The same attack, with the same dictionary, on plain single gradients of the same texts.
    common : collection of int
        Tokens that tell nothing: the most frequent ones of public text.
    seed : int
        Of the resampling.

    Raises
    ------
    InputError
        If no text of the trials or the control has a token outside ``common``.
    """
    shares = _known(trial.above_chance(common) for trial in trials)
    checks = _known(trial.named(common, trial.guesses) for trial in control)
    beyond = _known(trial.above_chance(common) for trial in control)
    return LeakageRate.judged(shares, control=checks, beyond=beyond, least=LEAST_CONTROL, seed=seed)


def _known(shares: Iterable[float | None]) -> np.ndarray:
    known = [share for share in shares if share is not None]
    if not known:
        raise InputError("No text has a token that is not common", todo="take longer texts, or fewer common tokens")
    return np.array(known)
