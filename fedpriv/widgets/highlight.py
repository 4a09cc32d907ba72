"""Source text as spans of (class, text) for a screen, with every character visible: data, never markup.

A request is written by somebody else, who may want to keep a reader's machine busy. General lexers take minutes for a
page of blanks; what is used here takes a time in proportion to the text: Python's own tokenizer, line by line.
"""

from __future__ import annotations

import builtins
import functools
import io
import keyword
import re
import tokenize
from collections.abc import Iterator

from fedpriv.domain.finding import lines_of, visible

Span = tuple[str, str]
Line = tuple[Span, ...]

LONGEST_LINE = 20_000
_MOST_COLOURED = 128 * 1024
_LONGEST_COLOURED = 1000
"""Characters of a file, and of a line of it: what is longer is shown without colours."""

_KINDS = {tokenize.STRING: "string", tokenize.NUMBER: "number", tokenize.COMMENT: "comment"}
_BUILTINS = frozenset(dir(builtins)) - frozenset(keyword.kwlist)
_YAML_KEY = re.compile(r"([ -]*)([A-Za-z0-9_@.+-]+)(:)(?= |$)")
_YAML_COMMENT = re.compile(r"(?:^|(?<= ))#.*$")


@functools.lru_cache(maxsize=16)
def highlighted(name: str, text: str) -> tuple[Line, ...]:
    """Return the lines of a file, as Python counts them, each as spans.

    Guarantee: the spans of a line together are that line as :func:`~fedpriv.domain.finding.visible` shows it.

    Parameters
    ----------
    name : str
        Its name; what is behind the last dot says what it is.
    """
    lines = [visible(line, LONGEST_LINE) for line in lines_of(text)]
    if sum(map(len, lines)) <= _MOST_COLOURED and max(map(len, lines), default=0) <= _LONGEST_COLOURED:
        if name.endswith(".py"):
            return tuple(_cut(line, marks) for line, marks in zip(lines, _python(lines), strict=True))
        if name.endswith(".yaml"):
            return tuple(_cut(line, list(_yaml(line))) for line in lines)
    return tuple(_cut(line, []) for line in lines)


_Mark = tuple[int, int, str]


def _python(lines: list[str]) -> list[list[_Mark]]:
    """Return (begin, end, class) of what has one, for each line; nothing from where it is no Python on."""
    marks: list[list[_Mark]] = [[] for _ in lines]
    before = ""
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
            label = _KINDS.get(token.type) or _label_of_name(token, before)
            before = token.string
            if label:
                _mark(marks, lines, token, label)
    except (tokenize.TokenError, SyntaxError):
        pass
    return marks


def _label_of_name(token: tokenize.TokenInfo, before: str) -> str:
    if token.type != tokenize.NAME:
        return ""
    if keyword.iskeyword(token.string):
        return "keyword"
    if before in ("def", "class"):
        return "name"
    return "builtin" if token.string in _BUILTINS and before != "." else ""


def _mark(marks: list[list[_Mark]], lines: list[str], token: tokenize.TokenInfo, label: str) -> None:
    (first, begin), (last, end) = token.start, token.end
    for row in range(first, last + 1):
        stop = end if row == last else len(lines[row - 1])
        marks[row - 1].append((begin if row == first else 0, stop, label))


def _yaml(line: str) -> Iterator[_Mark]:
    if key := _YAML_KEY.match(line):
        yield key.start(2), key.end(2), "name"
    if (comment := _YAML_COMMENT.search(line)) and not re.search(r"['\"]", line[: comment.start()]):
        yield comment.start(), comment.end(), "comment"


def _cut(line: str, marks: list[_Mark]) -> Line:
    spans: list[Span] = []
    at = 0
    for begin, end, label in marks:
        if begin > at:
            spans.append(("", line[at:begin]))
        if end > max(begin, at):
            spans.append((label, line[max(begin, at) : end]))
        at = max(at, end)
    if at < len(line):
        spans.append(("", line[at:]))
    return tuple(spans)
