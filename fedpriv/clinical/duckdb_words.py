"""duckdb's errors in our words: its own messages quote rows, so none of them is passed on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import duckdb

from fedpriv.clinical.sources.table import unreadable


@contextlib.contextmanager
def in_our_words(label: object) -> Iterator[None]:
    """Turn an error of duckdb into a DataError that names ``label`` and quotes no row."""
    try:
        yield
    except duckdb.Error as error:
        raise unreadable(label, _without_values(str(error))) from None


def _without_values(message: str) -> str:
    if "GZIP stream" in message:
        return "it is cut off, damaged, or not a gzip file"
    line = re.search(r"CSV Error on Line: (\d+)", message)
    where = f"line {line[1]}" if line else "a line"
    for mark, reason in (
        ("unicode", "is not UTF-8 text"),
        ("unterminated quote", "has a quote that is not closed"),
        ("Expected Number of Columns", "has another number of fields than the header"),
        ("Maximum line size", "is longer than 32 MB"),
    ):
        if mark in message:
            return f"{where} {reason}"
    if "Out of Memory" in message:
        return "there is not enough memory to read it"
    if "No space left" in message:
        return "the disk is full"
    return f"{where} is not as its header says"
