"""A cohort's data as the JSON value that its panel shows: what is made up, counted, and coarse statements."""

from __future__ import annotations

from typing import Any

from fedpriv.clinical.mock_reading import MockSide
from fedpriv.clinical.schema import SPECS
from fedpriv.domain.finding import visible
from fedpriv.study.shard import LEAST_COUNT, ShardStatement
from fedpriv.widgets.explorer_state import DomainData, ExplorerState
from fedpriv.widgets.sheet import Sheet, Table

MADE_UP = "Everything on this panel is made up (mock), but what domains said of their shards, which is rounded down."
MOST_CHARACTERS = 12_000
_STEPS = (10, 20, 50, 100, 200, 500, 1_000, 10_000)
_MOST_BANDS = 6


def view_of(state: ExplorerState) -> dict[str, Any]:
    """Return all that the page shows."""
    return {
        "dataset": state.dataset,
        "made_up": MADE_UP,
        "looking": state.looking,
        "domains": [_domain(domain) for domain in state.domains.values()],
        "alike": _alike(state),
        "differences": [visible(words, 600) for words in state.differences],
        "charts": _charts(state),
        "answers": _answers(state),
        "tables": _tables(state),
        "sample": _sample(state),
    }


def name_of(email: str) -> str:
    """Return the first part of an address."""
    return email.partition("@")[0]


def _alike(state: ExplorerState) -> bool:
    """Say whether several domains show the same mock data, as those that were made of the same seed."""
    mocks = [domain.mock for domain in state.domains.values() if domain.mock is not None]
    return len(mocks) > 1 and all(mock == mocks[0] for mock in mocks)


def _domain(domain: DomainData) -> dict[str, Any]:
    mock = domain.mock
    return {
        "email": domain.email,
        "name": name_of(domain.email),
        "words": visible(domain.words, 600),
        "mock": None if mock is None else f"{len(mock.lengths)} texts of {mock.patients} made-up patients",
        "told": [] if domain.told is None else _told(domain.told),
    }


def _told(told: ShardStatement) -> list[tuple[str, str]]:
    counts = ("patients", "admissions", "examples", "heldout_examples")
    rows = [(name.replace("_", " ").replace("heldout", "held-out"), _about(getattr(told, name))) for name in counts]
    return [*rows, ("tables", str(len(told.tables)))]


def _about(count: int) -> str:
    return f"about {count:,}" if count else f"under {LEAST_COUNT}"


def _mocks(state: ExplorerState) -> dict[str, MockSide]:
    return {name_of(email): domain.mock for email, domain in state.domains.items() if domain.mock is not None}


def _charts(state: ExplorerState) -> list[dict[str, Any]]:
    """Return what is counted, as stacked bars: one a domain."""
    mocks = _mocks(state)
    lengths = [length for mock in mocks.values() for length in mock.lengths] or [0]
    span = max(lengths) - min(lengths)
    step = next((step for step in _STEPS if span < step * (_MOST_BANDS - 1)), _STEPS[-1])
    first = min(lengths) // step
    found = [("length of texts", {name: _lengths(mock, first, step) for name, mock in mocks.items()})]
    for what in dict.fromkeys(what for mock in mocks.values() for what in mock.mixtures):
        found.append((what, {name: mock.mixtures.get(what, {}) for name, mock in mocks.items()}))
    return [_chart(what, counts) for what, counts in found if any(counts.values())]


def _lengths(mock: MockSide, first: int, step: int) -> dict[str, int]:
    """Return how many texts have how many words, in bands of the same width."""
    counts = [0] * _MOST_BANDS
    for length in mock.lengths:
        counts[min(length // step - first, _MOST_BANDS - 1)] += 1
    return {f"{band * step} to {(band + 1) * step - 1} words": count for band, count in enumerate(counts, first)}


def _chart(what: str, counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    parts = [part for part in dict.fromkeys(part for one in counts.values() for part in one) if _any(counts, part)]
    return {
        "title": what,
        "parts": [visible(part, 80) for part in parts],
        "rows": [{"name": name, "values": [one.get(part, 0) for part in parts]} for name, one in counts.items()],
    }


def _any(counts: dict[str, dict[str, int]], part: str) -> bool:
    return any(one.get(part) for one in counts.values())


def _answers(state: ExplorerState) -> dict[str, Any]:
    """Return for each question how often the answer is yes, by domain."""
    mocks = _mocks(state)
    questions = list(dict.fromkeys(question for mock in mocks.values() for question in mock.answers))
    rows = []
    for question in questions:
        found = (mock.answers.get(question) for mock in mocks.values())
        rows.append((visible(question, 200), ["" if one is None else f"{one[0]} of {one[1]}" for one in found]))
    return {"domains": list(mocks), "rows": rows}


def _tables(state: ExplorerState) -> list[dict[str, Any]]:
    """Return the schema: for each column what the mock sides have, and whether a domain said that it is filled."""
    mocks, told = _mocks(state), {name_of(e): d.told for e, d in state.domains.items() if d.told is not None}
    names = sorted({table.name for mock in mocks.values() for table in mock.tables})
    found = []
    for name in names:
        of = {who: table for who, mock in mocks.items() for table in mock.tables if table.name == name}
        columns: dict[str, str] = {column.name: column.type for table in of.values() for column in table.columns}
        needed = set(state.needed.get(name, ()))
        found.append(
            {
                "name": name,
                "rows": ", ".join(f"{who} {table.rows:,}" for who, table in of.items()),
                "domains": list(mocks),
                "columns": [
                    {
                        "name": visible(column, 64),
                        "type": kind,
                        "needed": column in needed,
                        "cells": [_cell(who, name, column, mocks, told) for who in mocks],
                    }
                    for column, kind in columns.items()
                ],
            }
        )
    return found


def _cell(who: str, table: str, column: str, mocks: dict[str, MockSide], told: dict[str, ShardStatement]) -> list[str]:
    """Return the share of made-up rows that fill a column, and what the domain said of its own."""
    mock = next((one for one in mocks[who].tables if one.name == table), None)
    filled = next((one.filled for one in mock.columns if one.name == column), None) if mock else None
    said = ""
    if who in told and table in SPECS and column in {needed.name for needed in SPECS[table].needed}:
        said = "mostly filled" if column in told[who].tables.get(table, ()) else "mostly empty"
    return ["not there" if filled is None else f"{filled:.0%}", said]


def _sample(state: ExplorerState) -> dict[str, Any] | None:
    domain = state.domains.get(state.shown)
    if domain is None or domain.mock is None or not domain.mock.texts:
        return None
    text = domain.mock.texts[state.text]
    lines = [visible(line, 4000) for line in text[:MOST_CHARACTERS].splitlines()]
    return {
        "domain": domain.email,
        "name": name_of(domain.email),
        "number": state.text,
        "of": len(domain.mock.texts),
        "lines": lines,
        "cut": len(text) > MOST_CHARACTERS,
    }


def sheet_of(state: ExplorerState) -> Sheet:
    """Return it as a sheet, for terminals and for pages without scripts."""
    rows = tuple(
        (
            one["email"],
            one["mock"] or one["words"],
            ", ".join(f"{name} {count}" for name, count in one["told"]) or "nothing yet",
        )
        for one in map(_domain, state.domains.values())
    )
    table = Table(caption=MADE_UP, head=("domain", "mock side", "said of its shard"), rows=rows)
    return Sheet(title=f"Data of {state.dataset}", note=" ".join(state.differences), parts=(table,))
