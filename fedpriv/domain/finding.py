"""What a static check says about one line of a request, in words for a data owner."""

from __future__ import annotations

import re
from typing import Literal, get_args

from pydantic import Field

from fedpriv.study.names import is_invisible
from fedpriv.study.section import Section

Severity = Literal["danger", "warning", "information"]
"""From what training code never needs, over what needs an explanation, to what is only good to know."""

Category = Literal[
    "unreadable",
    "network",
    "subprocess",
    "native-code",
    "dynamic-code",
    "obfuscation",
    "replaced-code",
    "introspection",
    "file-write",
    "file-read",
    "environment",
    "hidden-hook",
    "hidden-channel",
    "metrics",
    "unknown-import",
    "log-output",
]

LOOKED_FOR: dict[Category, str] = {
    "unreadable": "files that cannot be read as Python",
    "network": "network connections",
    "subprocess": "other programs and processes",
    "native-code": "machine code outside Python",
    "dynamic-code": "code that is made while it runs",
    "obfuscation": "code that hides what it does",
    "replaced-code": "changes to fedpriv or to libraries",
    "introspection": "looking into other code's memory",
    "file-write": "writing files",
    "file-read": "reading files other than the examples and the model",
    "environment": "looking at this machine",
    "hidden-hook": "code that runs at an unexpected moment",
    "hidden-channel": "turning text into numbers that could leave",
    "metrics": "metrics with unusual names",
    "unknown-import": "libraries that training rarely needs",
    "log-output": "output to the log",
}
"""What the static check looks for, in words."""

_MEANING: dict[Category, str] = {
    "unreadable": "Nobody can say what it does; do not approve it.",
    "network": "The sandbox has no network, so it would fail there; code for training has no reason to try.",
    "subprocess": "Code for training has no reason to start one; inside the sandbox it would stay inside, too.",
    "native-code": "No reader of this page can see what such code does; training has no reason to need it.",
    "dynamic-code": "What then runs does not stand in the files that you read.",
    "obfuscation": "Honest code has no reason to be hard to read; ask the researcher what it is.",
    "replaced-code": "Other code would then do something else than it says; ask the researcher why.",
    "introspection": "Training has no reason to look into the program that runs it.",
    "file-write": "Training returns what it makes and has no reason to write files; in the sandbox only its own "
    "workspace can be written, and nothing leaves from there unchecked.",
    "file-read": "Training needs the files that the context names and no other; in the sandbox it sees few others.",
    "environment": "Training has no reason to ask; in the sandbox it learns little.",
    "hidden-hook": "It is easy to overlook when it runs; ask the researcher what it is for.",
    "hidden-channel": "This can be honest. It is also how text could be written into what leaves: read it closely.",
    "metrics": "Metrics are numbers that leave as the plan lists them; the gatekeeper refuses other names.",
    "unknown-import": "It is not among the libraries that training usually needs; ask the researcher what it is for.",
    "log-output": "It goes to a log that stays at your domain.",
}

_MILDER: dict[Category, str] = {
    "obfuscation": "This can be honest; read it closely.",
    "unknown-import": "Each use of it that matters is listed, too.",
    "subprocess": "They stay inside the sandbox, too.",
    "network": "By itself this does nothing; in the sandbox there is no network.",
    "dynamic-code": "By itself this does nothing; see whether another line reads it.",
    "hidden-hook": "This can be honest; read what it does.",
    "replaced-code": "This can be honest; read what it does.",
    "introspection": "This can be honest; read what it is for.",
}
"""What an information of the category means, where that differs."""

_MOST_SHOWN = 160
_LINE_END = re.compile(r"\r\n|\r|\n")


class Finding(Section):
    """One thing that a reader should look at.

    Attributes
    ----------
    file, line : str and int
        Where: the name in the bundle, and the line from 1; 0 for the file as a whole.
    severity, category : str
        How grave it would be, and of which kind.
    code : str
        The line itself, at most 160 characters, with invisible characters made visible.
    sentence : str
        What it is and what that means, for somebody who is no programmer. No text of the request is in it except
        names of at most 60 visible ASCII characters.
    analyser : str
        Who found it: ``fedpriv``, or bandit with the number of its rule, or both.
    """

    file: str
    line: int = Field(ge=0)
    severity: Severity
    category: Category
    code: str
    sentence: str
    analyser: str

    @property
    def rank(self) -> tuple[int, int, str, int]:
        """What findings are sorted by: the most severe first, then by category, file and line."""
        severities, categories = get_args(Severity), get_args(Category)
        return severities.index(self.severity), categories.index(self.category), self.file, self.line


def sentence(line: int, does: str, severity: Severity, category: Category) -> str:
    """Return "Line 12 can open a network connection (socket). The sandbox has no network, so ..."."""
    where = f"Line {line}" if line else "The file"
    milder = _MILDER.get(category) if severity == "information" else None
    return f"{where} {does}. {milder or _MEANING[category]}"


def lines_of(text: str) -> list[str]:
    """Return the lines of a file as Python counts them: a lone carriage return ends one, too."""
    lines = _LINE_END.split(text)
    return lines[:-1] if len(lines) > 1 and not lines[-1] else lines


def visible(text: str, most: int = _MOST_SHOWN) -> str:
    """Return text of a request so that a reader sees every character: control characters become ``<U+000D>``.

    Guarantee: what is returned holds no control, formatting or blank-looking character but space, so that it can do
    nothing to a terminal. Markup of rich or HTML is not escaped: that is the view's part.

    Parameters
    ----------
    text : str
        Of one line; tabs become four spaces.
    most : int
        Longer text is cut, and the cut is shown.
    """
    spread = text[: most * 4].replace("\t", "    ")
    shown = "".join(f"<U+{ord(c):04X}>" if c in "\r\n" or is_invisible(c) else c for c in spread)
    return shown if len(shown) <= most and len(text) <= most * 4 else f"{shown[: most - 1]}…"


def visible_name(name: str) -> str:
    """Return a name of a request for a sentence: visible ASCII, at most 60 characters."""
    ascii_name = visible(name, 200).encode("ascii", "backslashreplace").decode()
    return ascii_name if len(ascii_name) <= 60 else f"{ascii_name[:57]}..."
