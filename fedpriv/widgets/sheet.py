"""A sheet of facts and tables, as text for a terminal and as HTML for a notebook or a static page.

What a sheet says may come from other parties. In HTML every text is escaped where it is put into a tag, and there is no
other way in; in text every character is visible (:func:`fedpriv.domain.finding.visible`). Colours are the page's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from fedpriv.domain.finding import visible

MOST_TEXT = 2000
"""Characters of one cell; what is longer is cut, and the cut is shown."""

_LINE = "1px solid rgba(128, 128, 128, 0.4)"
_BOX = f"max-width: 60rem; border: {_LINE}; border-radius: 4px; padding: 0.5rem 0.9rem; line-height: 1.45;"
_TABLE = "border-collapse: collapse; margin: 0.3rem 0; border: none; font-variant-numeric: tabular-nums;"
_CELL = f"padding: 0.15rem 0.9rem 0.15rem 0; border: none; border-bottom: {_LINE}; vertical-align: top; text-align: "
_NOTE = "margin: 0.2rem 0;"
_CODE = "white-space: pre-wrap; overflow-wrap: anywhere; margin: 0.3rem 0; background: transparent; color: inherit;"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names with what there is to say of each, one a line."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows below a head.

    Attributes
    ----------
    caption : str
        What it is.
    head : tuple of str
        One name a column.
    rows : tuple of tuple of str
        As many cells each.
    numbers : int
        So many columns at the right end hold numbers.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: int = 0


@dataclass(frozen=True, kw_only=True)
class Folded:
    """A text of many lines that is read only by those who want it."""

    caption: str
    text: str


Part = Facts | Table | Folded


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What is shown of one value.

    Attributes
    ----------
    title, note : str
        What it is, and the one sentence that matters.
    parts : tuple of Facts, Table or Folded
        In their order.
    """

    title: str
    note: str = ""
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class _Html:
    """Markup that was made by :func:`_tag`."""

    source: str


def to_html(sheet: Sheet) -> str:
    """Return the sheet as one ``<div>`` without scripts, ids or colours of its own."""
    note = [_tag("p", sheet.note, style=_NOTE)] if sheet.note else []
    heading = _tag("strong", sheet.title)
    return _tag(
        "div", heading, *note, *map(_part_html, sheet.parts), **{"class": "fedpriv-sheet", "style": _BOX}
    ).source


def to_text(sheet: Sheet) -> str:
    """Return the sheet as lines for a terminal, none of which can do anything to it."""
    lines = [_shown(sheet.title), *([_shown(sheet.note)] if sheet.note else [])]
    for part in sheet.parts:
        lines += ["", *_part_lines(part)]
    return "\n".join(line.rstrip() for line in lines)


def _shown(text: str) -> str:
    return visible(text, MOST_TEXT)


def _tag(name: str, *children: _Html | str, **attributes: str) -> _Html:
    """Return an element; every child that no tag was made of, and every attribute, is escaped."""
    inside = "".join(child.source if isinstance(child, _Html) else escape(_shown(child)) for child in children)
    given = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
    return _Html(f"<{name}{given}>{inside}</{name}>")


def _part_html(part: Part) -> _Html:
    match part:
        case Facts():
            rows = [_row(_cell("th", name, scope="row"), _cell("td", said)) for name, said in part.rows]
            return _tag("table", _tag("tbody", *rows), style=_TABLE)
        case Table():
            sides = _sides(part)
            head = _row(*(_cell("th", name, side, scope="col") for name, side in zip(part.head, sides, strict=True)))
            rows = [
                _row(*(_cell("td", cell, side) for cell, side in zip(row, sides, strict=True))) for row in part.rows
            ]
            caption = _tag("caption", part.caption, style="text-align: left; caption-side: top; padding: 0.3rem 0 0;")
            table = _tag("table", caption, _tag("thead", head), _tag("tbody", *rows), style=_TABLE)
            return _tag("div", table, style="overflow-x: auto;")
        case Folded():
            code = [_tag("div", line or " ") for line in part.text.splitlines()]
            return _tag("details", _tag("summary", part.caption), _tag("pre", *code, style=_CODE))


def _row(*cells: _Html) -> _Html:
    return _tag("tr", *cells, style="background: transparent;")


def _cell(name: str, text: str, side: str = "left", **attributes: str) -> _Html:
    return _tag(name, text, style=f"{_CELL}{side};", **attributes)


def _sides(table: Table) -> list[str]:
    return ["right" if place >= len(table.head) - table.numbers else "left" for place in range(len(table.head))]


def _part_lines(part: Part) -> Iterable[str]:
    match part:
        case Facts():
            return _columns(part.rows, ["left", "left"])
        case Table():
            return [_shown(part.caption), *_columns([part.head, *part.rows], _sides(part))]
        case Folded():
            return [_shown(part.caption), *(f"    {_shown(line)}" for line in part.text.splitlines())]


def _columns(rows: Sequence[Sequence[str]], sides: Sequence[str]) -> list[str]:
    """Return rows with cells below each other; the last column may be as long as it is."""
    cells = [[_shown(cell) for cell in row] for row in rows]
    widths = [max((len(row[place]) for row in cells), default=0) for place in range(len(sides))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if side == "right" else cell.ljust(width)
            for cell, width, side in zip(row, widths, sides, strict=True)
        )
        for row in cells
    ]
