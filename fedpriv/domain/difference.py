"""What differs between two requests, or between a request and the stock recipe, line by line and setting by setting."""

from __future__ import annotations

import difflib
import io
import tokenize
from collections.abc import Mapping
from typing import Any, Literal

from fedpriv.domain.finding import lines_of, visible
from fedpriv.study.plan import Plan
from fedpriv.study.request import PLAN_FILE
from fedpriv.study.section import Section

_CONTEXT = 3
_MOST_LINES = 4000
_LONGEST_LINE = 400
_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}


class FileDifference(Section):
    """One file of two bundles.

    Attributes
    ----------
    name : str
        Its name in the bundle.
    kind : str
        ``same``, ``changed``, ``added`` (only the second bundle has it) or ``removed``.
    lines : tuple of str
        The difference as lines that begin with ``+``, ``-``, a space or ``@@``, with every character visible.
    layout_only : bool
        Whether only comments, blank lines or spaces within lines differ, so that Python does the same.
    """

    name: str
    kind: Literal["same", "changed", "added", "removed"]
    lines: tuple[str, ...] = ()
    layout_only: bool = False


class PlanChange(Section):
    """One setting of two plans, by its path, with both values as text."""

    setting: str
    before: str
    after: str


class Difference(Section):
    """All files of two bundles but ``plan.yaml``, and the settings of their plans if there are two."""

    against: str
    files: tuple[FileDifference, ...]
    plan: tuple[PlanChange, ...] = ()

    @property
    def changed(self) -> tuple[FileDifference, ...]:
        """The files that are not the same."""
        return tuple(file for file in self.files if file.kind != "same")

    @property
    def in_words(self) -> str:
        """One sentence about the code."""
        if not self.changed:
            return f"The code is that of {self.against}, to the byte."
        if all(file.layout_only for file in self.changed):
            return f"Only comments, blank lines and spacing differ from {self.against}: Python does the same."
        words = {"changed": "differs", "added": "is new", "removed": "is missing"}
        parts = [f"{file.name} {words[file.kind]}" for file in self.changed[:6]]
        more = f", and {len(self.changed) - 6} more files" if len(self.changed) > 6 else ""
        return f"Against {self.against}: {', '.join(parts)}{more}."


def code_difference(
    before: Mapping[str, str], after: Mapping[str, str], *, against: str, plans: tuple[Plan, Plan] | None = None
) -> Difference:
    """Compare the code of two bundles.

    Parameters
    ----------
    before, after : Mapping[str, str]
        Relative path to text; ``plan.yaml`` is left out.
    against : str
        What ``before`` is, such as ``the stock recipe``.
    plans : tuple of Plan, optional
        The plans before and after, compared setting by setting.
    """
    names = sorted((set(before) | set(after)) - {PLAN_FILE})
    files = tuple(_of_file(name, before.get(name), after.get(name)) for name in names)
    return Difference(against=against, files=files, plan=plan_changes(*plans) if plans else ())


def plan_changes(before: Plan, after: Plan) -> tuple[PlanChange, ...]:
    """Return the settings that differ, in the order of their paths."""
    old, new = _flat(before.model_dump(mode="json")), _flat(after.model_dump(mode="json"))
    return tuple(
        PlanChange(setting=path, before=old.get(path, "not set"), after=new.get(path, "not set"))
        for path in sorted(old | new)
        if old.get(path) != new.get(path)
    )


def _of_file(name: str, before: str | None, after: str | None) -> FileDifference:
    if before == after:
        return FileDifference(name=name, kind="same")
    kind = "added" if before is None else "removed" if after is None else "changed"
    old, new = ([] if text is None else lines_of(text) for text in (before, after))
    layout = before is not None and after is not None and name.endswith(".py") and _same_program(before, after)
    return FileDifference(name=name, kind=kind, lines=_unified(old, new), layout_only=layout)


def _unified(old: list[str], new: list[str]) -> tuple[str, ...]:
    if len(old) + len(new) > _MOST_LINES:
        return (f"@@ {len(old)} and {len(new)} lines: too many to be compared here @@",)
    found = list(difflib.unified_diff(old, new, n=_CONTEXT, lineterm=""))[2:]
    return tuple(line[:1] + visible(line[1:], _LONGEST_LINE) for line in found)


def _same_program(one: str, other: str) -> bool:
    """Say whether two files differ in comments, blank lines and spacing only, and no comment names an encoding."""
    if any("coding" in line for text in (one, other) for line in lines_of(text)[:2]):
        return False
    try:
        return _words(one) == _words(other)
    except (tokenize.TokenError, SyntaxError, ValueError):
        return False


def _words(text: str) -> list[tuple[int, str]]:
    """Return the words of a program, with line ends as Python sees them: a lone carriage return ends a comment."""
    lines = lines_of(text)
    blank = {tokenize.INDENT, tokenize.NEWLINE}  # that they are there counts, not how they are written
    tokens = tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline)
    return [(t.type, "" if t.type in blank else t.string) for t in tokens if t.type not in _LAYOUT]


def _flat(value: Any, path: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        return {
            key: text
            for name, inner in value.items()
            for key, text in _flat(inner, f"{path} > {name}" if path else str(name)).items()
        }
    return {path: _text(value)}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, dict):
        return " ".join(f"{name} {_text(inner)}" for name, inner in value.items() if inner not in (None, [], ()))
    return "none" if value is None else str(value)
