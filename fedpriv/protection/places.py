"""Where the values of a group lie in the flattened update: a stretch of a group may run over several tensors."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from fedpriv.protection.groups import Group, in_update


class Place(NamedTuple):
    """A part of a stretch that lies within one tensor.

    Attributes
    ----------
    within : slice
        Where it is in the stretch.
    update : slice
        Where it is in the flattened update.
    tensor : int
        Number of the tensor, in the sorted order of all names of the study.
    """

    within: slice
    update: slice
    tensor: int


class Places:
    """The places of the groups of one update.

    Parameters
    ----------
    groups : sequence of Group
        All groups of the plan.
    indices : collection of int, optional
        Numbers of those that the update holds (:func:`fedpriv.protection.groups.live`); by default all.

    Attributes
    ----------
    groups : dict of int to Group
        The groups that the update holds, by their numbers in the plan; spans count over the update.
    size : int
        Number of parameters of the update.
    tensors_in_all : int
        Number of tensors of the study.
    """

    def __init__(self, groups: Sequence[Group], indices: Collection[int] | None = None) -> None:
        names = sorted({span.name for group in groups for span in group.spans})
        self._numbers = {name: number for number, name in enumerate(names)}
        self.groups = in_update(groups, range(len(groups)) if indices is None else indices)
        self.tensors_in_all = len(names)
        self.size = sum(group.parameters for group in self.groups.values())
        self._starts: dict[int, list[int]] = {}
        for index, group in self.groups.items():
            starts = [0]
            for span in group.spans:
                starts.append(starts[-1] + span.size)
            self._starts[index] = starts

    def tensors(self, group: int) -> list[int]:
        """Return the numbers of a group's tensors, in the order of its spans."""
        return [self._numbers[span.name] for span in self.groups[group].spans]

    def of(self, group: int, start: int, stop: int) -> Iterator[Place]:
        """Yield the parts of a group's values ``start`` to ``stop`` (cut at its end), in their order."""
        starts, spans = self._starts[group], self.groups[group].spans
        stop = min(stop, starts[-1])
        number = bisect.bisect_right(starts, start) - 1
        position = start
        while position < stop:
            span = spans[number]
            end = min(stop, starts[number + 1])
            begin = span.start + position - starts[number]
            yield Place(
                slice(position - start, end - start),
                slice(begin, begin + end - position),
                self._numbers[span.name],
            )
            position, number = end, number + 1
