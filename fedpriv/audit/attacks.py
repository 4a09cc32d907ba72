"""The attacks of an audit. Each gets what a party holds of every case; a new one is a class more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fedpriv.audit.result import AttackName, Range
from fedpriv.errors import InputError
from fedpriv.leakage import (
    Dictionary,
    Reader,
    SequenceTrial,
    Trial,
    View,
    leakage_rate,
    membership_score,
    recover_likely_tokens,
    recover_sequences,
    sequence_rate,
)
from fedpriv.leakage.above_chance import LEAST_TRIALS, AboveChance
from fedpriv.leakage.intervals import bootstrap
from fedpriv.leakage.membership import auroc
from fedpriv.leakage.rate import LEAST_CONTROL
from fedpriv.training.adapter import AdapterState

_FAILED = (
    "the attack did not reach what it must on plain gradients of what this plan sends, so its silence says nothing"
)
SILENT = "after such steps the attack finds nothing even where nothing protects the update, so its silence says nothing"
"""Of so few passages that may be chance: more may show that the attack works, see :data:`ENOUGH_TRIALS`."""

ENOUGH_TRIALS = 16
"""Of fewer, an attack that works after the plan's steps is often not told from guessing."""


MOST_SOUGHT = 48
"""Tokens that are looked for in one update; further guesses are by frequency. It bounds the time, and weakens the
attack on rounds of many passages."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One case as a party sees it.

    Attributes
    ----------
    own, other : View
        Of what holds the passages in question, and of the same with others in their place.
    secret : frozenset of int
        The tokens of the passages in question.
    text : tuple of int
        Those of the first of them that the model has read, in order.
    gradient : dict of ndarray
        The gradient of the first of them.
    """

    own: View
    other: View
    secret: frozenset[int]
    text: tuple[int, ...]
    gradient: AdapterState


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What an attack found, or why it did not measure."""

    found: Range | None
    control: Range | None
    trials: int
    why_not: str = ""


@dataclass(frozen=True, kw_only=True)
class Control:
    """What an attack makes of single passages where it must find something.

    Attributes
    ----------
    gradients
        Of their plain gradients, where it must name nearly all.
    steps
        Of what the plan's steps make of them, with no protection, no privacy and the stock recipe: where it finds
        nothing, it would find nothing in any other update of such steps.
    """

    gradients: Any
    steps: Any


class Attack(Protocol):
    """An attack with positive controls: what it makes of views, given what it makes where it must succeed."""

    @property
    def name(self) -> AttackName:
        """For data."""
        ...

    def tried(self, cases: Sequence[Seen]) -> Any:
        """Return what the attack makes of updates as the plan computes them."""
        ...

    def controlled(self, cases: Sequence[Seen]) -> Any:
        """Return what it makes of plain gradients, where it must succeed."""
        ...

    def judge(self, tried: Any, control: Control) -> Finding:
        """Return what was found in the one; nothing where the attack fails on either part of the other."""
        ...


@dataclass(frozen=True, kw_only=True)
class TokenAttack:
    """Which tokens stood in the passages: :func:`fedpriv.leakage.recover_likely_tokens`.

    Attributes
    ----------
    dictionary : Dictionary
        For updates as the plan's steps make them.
    plain : Dictionary
        For plain gradients.
    common : frozenset of int
        Tokens that tell nothing.
    """

    dictionary: Dictionary
    plain: Dictionary
    common: frozenset[int]
    name: AttackName = "tokens"

    def tried(self, cases: Sequence[Seen]) -> list[Trial]:
        return [self._trial(case, self.dictionary) for case in cases]

    def controlled(self, cases: Sequence[Seen]) -> list[Trial]:
        return [self._trial(case, self.plain) for case in cases]

    def judge(self, tried: list[Trial], control: Control) -> Finding:
        try:
            rate, steps = (
                leakage_rate(trials, control=control.gradients, common=self.common) for trials in (tried, control.steps)
            )
        except InputError as error:
            return Finding(found=None, control=None, trials=0, why_not=error.what)
        return _finding(rate, steps)

    def _trial(self, case: Seen, dictionary: Dictionary) -> Trial:
        own, other = (self._guesses(view, dictionary, len(case.secret)) for view in (case.own, case.other))
        return Trial(secret=case.secret, guesses=own, others=other)

    @staticmethod
    def _guesses(view: View, dictionary: Dictionary, count: int) -> list[int]:
        sought = recover_likely_tokens(view, dictionary, min(count, MOST_SOUGHT))
        return list(dict.fromkeys([*sought, *dictionary.by_frequency]))[:count]


@dataclass(frozen=True, kw_only=True)
class TextAttack:
    """What stood in the passage, word for word: :func:`fedpriv.leakage.recover_sequences`.

    Attributes
    ----------
    reader, dictionary
        For updates as the plan's steps make them.
    plain_reader, plain
        For plain gradients.
    most : int
        So many passages are read; each takes long.
    """

    reader: Reader
    dictionary: Dictionary
    plain_reader: Reader
    plain: Dictionary
    most: int
    name: AttackName = "text"

    def tried(self, cases: Sequence[Seen]) -> list[SequenceTrial]:
        return self._trials(cases, self.reader, self.dictionary)

    def controlled(self, cases: Sequence[Seen]) -> list[SequenceTrial]:
        return self._trials(cases, self.plain_reader, self.plain)

    def judge(self, tried: list[SequenceTrial], control: Control) -> Finding:
        return _finding(*(sequence_rate(trials, control=control.gradients) for trials in (tried, control.steps)))

    def _trials(self, cases: Sequence[Seen], reader: Reader, dictionary: Dictionary) -> list[SequenceTrial]:
        guesses = [self._read(case, reader, dictionary) for case in cases[: self.most]]
        others = [*guesses[1:], guesses[0]]  # what the same party reads of the next passage
        return [
            SequenceTrial(truth=case.text, guess=guess, other=other)
            for case, guess, other in zip(cases, guesses, others, strict=False)
        ]

    @staticmethod
    def _read(case: Seen, reader: Reader, dictionary: Dictionary) -> tuple[int, ...]:
        likely = recover_likely_tokens(case.own, dictionary, min(2 * len(case.text), MOST_SOUGHT))
        found = recover_sequences(case.own, reader, length=len(case.text), candidates=likely)
        return found[0] if found else ()


@dataclass(frozen=True, kw_only=True)
class MembershipAttack:
    """Was this very passage in it: :func:`fedpriv.leakage.membership_score`, over the tensors that are sent."""

    name: AttackName = "membership"

    def tried(self, cases: Sequence[Seen]) -> list[tuple[float, float]]:
        return [(membership_score(c.own, c.gradient), membership_score(c.other, c.gradient)) for c in cases]

    controlled = tried

    def judge(self, tried: list[tuple[float, float]], control: Control) -> Finding:
        found, reached, steps = (
            bootstrap([*np.array(scores).T], auroc) for scores in (tried, control.gradients, control.steps)
        )
        works = reached.value >= LEAST_CONTROL and reached.low > 0.5
        why_not = _why_not(len(tried), works=works, finds=steps.low > 0.5)
        return Finding(
            found=None if why_not else Range.of(found), control=Range.of(reached), trials=len(tried), why_not=why_not
        )


def _finding(rate: AboveChance, steps: AboveChance) -> Finding:
    finds = steps.above_chance is not None and steps.above_chance.above_zero
    why_not = _why_not(rate.trials, works=rate.measured, finds=finds)
    return Finding(
        found=None if why_not or rate.above_chance is None else Range.of(rate.above_chance),
        control=Range.of(rate.control),
        trials=rate.trials,
        why_not=why_not,
    )


def _why_not(trials: int, *, works: bool, finds: bool) -> str:
    """Return why nothing was measured; nothing where it was."""
    if trials < LEAST_TRIALS:
        return _too_few(trials)
    if not works:
        return _FAILED
    return "" if finds else SILENT


def _too_few(count: int) -> str:
    return f"only {count} passages could be attacked, and fewer than {LEAST_TRIALS} say nothing"
