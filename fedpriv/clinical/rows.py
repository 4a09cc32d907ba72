"""What tasks read from: typed rows of the common record, wherever they are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Protocol

LeftOut = Counter[str]
"""How much was left out, by the reason in words; it holds no value of the data."""


class Rows(Protocol):
    """Tables of some patients, named in lower case, with the columns of :mod:`fedpriv.clinical.schema`.

    All rows of a patient are in the same place. Nothing may be concluded from a patient's absence: a store gives one
    part of the patients after the other.
    """

    def has(self, name: str) -> bool:
        """Return whether the table ``name`` (as in the release, upper case) is there."""
        ...

    def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a query and return its rows."""
        ...

    def stream(self, sql: str, parameters: dict[str, Any] | None = None) -> Iterator[tuple[Any, ...]]:
        """Run a query and give its rows a batch at a time; one stream at a time."""
        ...
