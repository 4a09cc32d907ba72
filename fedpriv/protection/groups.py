"""Groups: which tensors of an update are protected alike, from the plan's default level and its rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from fedpriv.errors import ProtectionError
from fedpriv.study.plan import ProtectionChoice, ProtectionLevel, names_tensor


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
    """The tensors of one level and number of bits.

    Attributes
    ----------
    level : str
        How they are protected.
    bits : int
        Bits of a quantised value; 0 at levels that do not quantise.
    spans : tuple of Span
        The tensors, in sorted-name order. Neighbouring tensors of a group need not be neighbours in the update.
    """

    level: ProtectionLevel
    bits: int
    spans: tuple[Span, ...]

    @property
    def parameters(self) -> int:
        """Number of parameters of the group."""
        return sum(span.size for span in self.spans)


def groups_of(protection: ProtectionChoice, tensors: Mapping[str, int]) -> tuple[Group, ...]:
    """Divide an update among the levels of a plan.

    *Guarantee*: every parameter lies in exactly one group, and all who hold the same plan and the same tensors get the
    same groups in the same order: by level as :data:`~fedpriv.study.plan.ProtectionLevel` lists them, then by bits,
    most first. No group is empty.

    Parameters
    ----------
    protection : ProtectionChoice
        The plan's default level and rules; the first rule about a tensor counts.
    tensors : Mapping[str, int]
        Name of each tensor to its number of parameters, in any order.

    Raises
    ------
    ProtectionError
        If there is no tensor, one has no parameter, or a rule names something that no tensor matches: a misspelt rule
        would otherwise silently leave a tensor at another level than meant.
    """
    if not tensors:
        raise ProtectionError("There is no tensor to protect", todo="name at least one layer in lora > targets")
    _refuse_rules_about_nothing(protection, tensors)
    found: dict[tuple[ProtectionLevel, int], list[Span]] = {}
    start = 0
    for name in sorted(tensors):
        size = tensors[name]
        if size < 1:
            raise ProtectionError(f"The tensor {name} has {size} parameters")
        found.setdefault(protection.of_tensor(name), []).append(Span(name, start, size))
        start += size
    order = get_args(ProtectionLevel)
    keys = sorted(found, key=lambda key: (order.index(key[0]), -key[1]))
    return tuple(Group(level, bits, tuple(found[level, bits])) for level, bits in keys)


def _refuse_rules_about_nothing(protection: ProtectionChoice, tensors: Mapping[str, int]) -> None:
    for number, rule in enumerate(protection.rules, 1):
        for what in (*rule.tensors, *rule.layers):
            if not any(names_tensor(what, name) for name in tensors):
                named = f"layer {what}" if isinstance(what, int) else what
                raise ProtectionError(
                    f"Rule {number} of the plan's protection names {named}, which no tensor of the adapter matches",
                    kept="Nothing was sealed",
                    todo=f"correct protection > rules > {number}; the adapter has tensors such as {min(tensors)}",
                )
