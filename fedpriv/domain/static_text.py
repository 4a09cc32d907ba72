"""What a file of a request shows to the eye, and what it hides: looked for in its text, whatever is in it."""

from __future__ import annotations

import ast
import collections
import io
import itertools
import math
import re
import tokenize
import unicodedata
from collections.abc import Iterator

from fedpriv.domain.finding import lines_of, visible_name
from fedpriv.domain.static_rules import Rule
from fedpriv.study.names import is_invisible

_ENCODED = re.compile(r"[A-Za-z0-9+/=_-]{100,}")
_DENSE = re.compile(r"[A-Za-z0-9+/=]{40,}")
_ESCAPES = re.compile(r"(?:\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\[0-7]{3}){4,}")
_FAR_RIGHT = re.compile(r"\S[ \t]{40,}[^\s#]")
_COOKIE = re.compile(r"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_CODE_ELSEWHERE = re.compile(r"^\s*(?:import\s+\w|from\s+[\w.]+\s+import\s|exec\s*\(|eval\s*\()")
_LONE_RETURN = re.compile(r"\r(?!\n)")
_LONGEST_LINE = 200
_DENSE_BITS = 4.3
_MATHEMATICAL = frozenset("αβγδεζηθλμξπρστφχψωΔΣΠΘΛΩ∇")
"""Letters of formulas that look like no Latin letter."""


def text_findings(name: str, text: str) -> Iterator[tuple[int, Rule]]:
    """Yield what a reader of a file's text would not see, or would only seem to see.

    Parameters
    ----------
    name : str
        The file's name: only ``.py`` files are looked at as code.
    text : str
        Its content.
    """
    is_code = name.endswith(".py")
    for hidden in itertools.islice(_LONE_RETURN.finditer(text), 20):
        does = "ends with a sign that many programs do not show as a line end, with text behind it"
        yield len(lines_of(text[: hidden.start()])), Rule("danger", "obfuscation", does)
    for number, line in enumerate(lines_of(text), 1):
        yield from ((number, rule) for rule in _of_line(line, is_code=is_code))
        cookie = _COOKIE.match(line) if is_code and number <= 2 else None
        if cookie and cookie[1].lower().replace("_", "-") not in ("utf-8", "utf8"):
            does = "tells Python to read the file in another encoding than you see it in"
            yield number, Rule("danger", "obfuscation", does)
    if is_code and not text.isascii():
        yield from _odd_names(text)


def _of_line(line: str, *, is_code: bool) -> Iterator[Rule]:
    if any(is_invisible(character) for character in line):
        yield Rule("danger", "obfuscation", "holds characters that nobody sees")
    encoded = _ENCODED.search(line)
    if encoded or (is_code and any(_bits(part) > _DENSE_BITS for part in itertools.islice(_DENSE.findall(line), 50))):
        yield Rule("warning", "obfuscation", "holds what looks like encoded data")
    if is_code:
        yield from _of_code_line(line)
    elif _CODE_ELSEWHERE.match(line):
        yield Rule("information", "dynamic-code", "looks like code, in a file that is none")


def _of_code_line(line: str) -> Iterator[Rule]:
    if len(line) > _LONGEST_LINE:
        yield Rule("warning", "obfuscation", f"is {len(line)} characters long, more than a screen shows")
    if _FAR_RIGHT.search(line):
        yield Rule("danger", "obfuscation", "has text far to the right, out of sight")
    if _ESCAPES.search(line):
        yield Rule("warning", "obfuscation", "writes text as numbers of characters, which hides it")
    if "nosec" in line and "#" in line:
        yield Rule("information", "obfuscation", "asks code checkers to look away; this one does not")


def _bits(text: str) -> float:
    """Return the entropy of a text, in bits a character."""
    counts = collections.Counter(text[:4096]).values()
    total = sum(counts)
    return -sum(count / total * math.log2(count / total) for count in counts)


def _odd_names(text: str) -> Iterator[tuple[int, Rule]]:
    """Yield names with letters beyond ASCII, which can look like another name."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and not token.string.isascii():
                yield token.start[0], _of_name(token.string)
    except (tokenize.TokenError, SyntaxError, ValueError):
        return  # the file cannot be read as Python, which is a finding of its own


def _of_name(name: str) -> Rule:
    letters = {character for character in name if not character.isascii()}
    if letters <= _MATHEMATICAL:
        return Rule("information", "obfuscation", f"has a name with Greek letters ({visible_name(name)})")
    mixed = any(character.isascii() and character.isalpha() for character in name)
    deceives = mixed or unicodedata.normalize("NFKC", name) != name or len(name) == 1
    does = f"has a name with letters that look like others ({visible_name(name)})"
    return Rule("danger" if deceives else "warning", "obfuscation", does)


def parsed(text: str) -> ast.Module | str:
    """Return the syntax tree of a file, or why there is none."""
    try:
        return ast.parse(text)
    except SyntaxError as error:
        return f"is no valid Python (line {error.lineno or 0})"
    except (ValueError, RecursionError, MemoryError):
        return "cannot be read as Python"
