"""Groups: which tensors of an update are protected alike, from the plan's default level and its rules.

One key serves all rounds of a study. Where rounds send different tensors, a group holds tensors of one turn only; where
a round chooses its bits, a tensor lies in a group for each choice. An update holds the groups whose turn it is with the
bits of the round: :func:`live` says which, to sealer, adder and opener alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

from fedpriv.errors import ProtectionError
from fedpriv.study.averaging import Turn, is_live
from fedpriv.study.protection_choice import ProtectionChoice, ProtectionLevel, names_tensor


@dataclass(frozen=True)
class Span:
    """Where a tensor lies in the flattened update, whose tensors follow each other in sorted-name order.

    Attributes
    ----------
    name : str
        The tensor's name.
    start, size : int
        Index of its first parameter in the flattened update, and number of its parameters.
    """

    name: str
    start: int
    size: int


@dataclass(frozen=True)
class Group:
    """The tensors of one level, number of bits and turn, and of one choice of bits.

    Attributes
    ----------
    level : str
        How they are protected.
    bits : int
        Bits of a quantised value; 0 at levels that do not quantise.
    spans : tuple of Span
        The tensors, in sorted-name order. Neighbouring tensors of a group need not be neighbours in the update.
    turn : int
        In which rounds they are sent: 0 in every one, 1 in odd ones, 2 in even ones.
    choice : int
        The bits of the rounds in which they are sent with this group; 0 if it is so whatever a round chooses.
    """

    level: ProtectionLevel
    bits: int
    spans: tuple[Span, ...]
    turn: Turn = 0
    choice: int = 0

    @property
    def parameters(self) -> int:
        """Number of parameters of the group."""
        return sum(span.size for span in self.spans)


def groups_of(
    protection: ProtectionChoice, tensors: Mapping[str, int], turns: Mapping[str, Turn] | None = None
) -> tuple[Group, ...]:
    """Divide the tensors of a study among the levels of its plan.

    *Guarantee*: every parameter lies in exactly one group that is live in a round that sends it (:func:`live`), and all
    who hold the same plan and the same tensors get the same groups in the same order: by level as
    :data:`~fedpriv.study.protection_choice.ProtectionLevel` lists them, then by bits, most first, then by turn, then
    those that no choice is about first. No group is empty.

    Parameters
    ----------
    protection : ProtectionChoice
        The plan's default level and rules; the first rule about a tensor counts.
    tensors : Mapping[str, int]
        Name of each tensor that is ever sent to its number of parameters, in any order.
    turns : Mapping[str, int], optional
        The turn of each tensor; by default all are sent in every round.

    Returns
    -------
    tuple of Group
        Spans count over all tensors; those of one round's update are :func:`in_update`'s.

    Raises
    ------
    ProtectionError
        If there is no tensor, one has no parameter, or a rule names something that no tensor matches: a misspelt rule
        would otherwise silently leave a tensor at another level than meant.
    """
    if not tensors:
        raise ProtectionError("There is no tensor to protect", todo="name at least one layer in lora > targets")
    _refuse_rules_about_nothing(protection, tensors)
    found: dict[tuple[ProtectionLevel, int, Turn, int], list[Span]] = {}
    start = 0
    for name in sorted(tensors):
        size = tensors[name]
        if size < 1:
            raise ProtectionError(f"The tensor {name} has {size} parameters")
        turn: Turn = turns[name] if turns is not None else 0
        level, bits = protection.of_tensor(name)
        for choice in protection.choices_of_tensor(name) or (0,):
            found.setdefault((level, choice or bits, turn, choice), []).append(Span(name, start, size))
        start += size
    order = get_args(ProtectionLevel)
    keys = sorted(found, key=lambda key: (order.index(key[0]), -key[1], *key[2:]))
    return tuple(
        Group(level, bits, tuple(found[level, bits, turn, choice]), turn, choice) for level, bits, turn, choice in keys
    )


class InSomeRounds(Protocol):
    """A group, or what a key says of one."""

    @property
    def turn(self) -> Turn: ...

    @property
    def choice(self) -> int: ...


def live(groups: Sequence[InSomeRounds], round_number: int, bits: int) -> tuple[int, ...]:
    """Return the numbers of the groups that are in the updates of a round.

    *Guarantee*: all who hold the same key get the same, whatever else they know; it is the only place that decides.

    Parameters
    ----------
    groups : sequence of Group or GroupParameters
        All of the plan, or of the key.
    round_number, bits : int
        As the header of each update of the round says.

    Raises
    ------
    ProtectionError
        If the plan does not provide for a round of so many bits.
    """
    choices = {group.choice for group in groups} - {0}
    if choices and bits not in choices:
        known = ", ".join(map(str, sorted(choices)))
        raise ProtectionError(f"The plan has rounds of {known} bits, not of {bits}", kept="It was not used")
    return tuple(
        index for index, group in enumerate(groups) if is_live(group.turn, round_number) and group.choice in (0, bits)
    )


def in_update(groups: Sequence[Group], indices: Collection[int]) -> dict[int, Group]:
    """Return these groups by their numbers, with spans that count over the tensors of these groups alone.

    An update holds the tensors of its groups, flattened one after the other in the sorted order of their names.
    """
    starts, start = {}, 0
    spans = sorted((span for index in indices for span in groups[index].spans), key=lambda span: span.name)
    for span in spans:
        starts[span.name] = start
        start += span.size
    return {
        index: dataclasses.replace(
            groups[index],
            spans=tuple(dataclasses.replace(span, start=starts[span.name]) for span in groups[index].spans),
        )
        for index in indices
    }


def _refuse_rules_about_nothing(protection: ProtectionChoice, tensors: Mapping[str, int]) -> None:
    for number, rule in enumerate(protection.rules, 1):
        for what in (*rule.tensors, *rule.layers):
            if not any(names_tensor(what, name) for name in tensors):
                named = f"layer {what}" if isinstance(what, int) else what
                raise ProtectionError(
                    f"Rule {number} of the plan's protection names {named}, which no tensor that is sent matches",
                    kept="Nothing was sealed",
                    todo=f"correct protection > rules > {number}; tensors such as {min(tensors)}",
                )
