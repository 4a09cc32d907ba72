"""The static check: what a request's code would do, read from its text by bandit and by rules of our own.

What it is: help for a reader. It names the lines that a data owner should look at first, and says in words why.

What it cannot do. It is no wall, and "nothing found" is no proof of anything: Python has more ways to hide an action
than any reading of the text can follow (names that are computed, objects that are passed through libraries, values
that steer what a harmless-looking line does). It does not judge what training does to the adapter or the metrics: code
that writes a note, bit by bit, into the least significant digits of the adapter can look like honest arithmetic. It
does not look into the libraries that the code imports. It does not see how long the code takes or whether it fails,
which the researcher learns. The walls are elsewhere: the sandbox (no network, no view of the domain), the gatekeeper
(names, shapes, norm and range of what leaves), protection (nobody sees a single update), and the release.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from sys import stdlib_module_names

from fedpriv.domain.finding import Finding, lines_of, sentence, visible, visible_name
from fedpriv.domain.static_bandit import bandit_findings
from fedpriv.domain.static_code import code_findings
from fedpriv.domain.static_rules import IMPORTABLE, Rule
from fedpriv.domain.static_text import parsed, text_findings
from fedpriv.study.request import PLAN_FILE, RECIPE_FILE

MOST_FINDINGS = 200
"""Of one file; more are counted, not shown."""

MOST_LINES, MOST_CHARACTERS = 2000, 300_000
"""Of one file: more lines than these nobody reads closely; more characters are not looked at as code at all."""

_OURS = "fedpriv"
Seen = tuple[int, Rule, str]


def findings(files: Mapping[str, str]) -> tuple[Finding, ...]:
    """Return what a reader of a request's code should look at, the most severe first.

    Guarantee: nothing of the request is run, imported, written to disk or sent anywhere, and no text makes it raise.

    Parameters
    ----------
    files : Mapping[str, str]
        Relative path to text, such as :attr:`fedpriv.study.CodeRequest.files`. ``plan.yaml`` is left out: the plan
        is validated, and shown in words.

    Returns
    -------
    tuple of Finding
        At most one for each line and category of a file. The stock recipe has none.
    """
    modules = frozenset(_module_of(name) for name in files if name.endswith(".py"))
    found: list[Finding] = []
    for name in sorted(files):
        if name != PLAN_FILE:
            found += _of_file(name, files[name], modules)
    return tuple(sorted(found, key=lambda finding: finding.rank))


def _module_of(name: str) -> str:
    """Return the top-level name by which Python would import a file of the bundle."""
    return PurePosixPath(name).parts[0].removesuffix(".py") if PurePosixPath(name).parts else name


def _of_file(name: str, text: str, modules: frozenset[str]) -> list[Finding]:
    lines = lines_of(text)
    merged: dict[tuple[int, str], tuple[Rule, list[str]]] = {}
    for line, rule, analyser in _seen(name, text, modules):
        known, analysers = merged.get((line, rule.category), (rule, []))
        graver = rule if _weight(rule) < _weight(known) else known
        merged[line, rule.category] = (graver, analysers if analyser in analysers else [*analysers, analyser])
    found = [
        Finding(
            file=name,
            line=line,
            severity=rule.severity,
            category=rule.category,
            code=visible(lines[line - 1].strip()) if 0 < line <= len(lines) else "",
            sentence=sentence(line, rule.does, rule.severity, rule.category),
            analyser=", ".join(analysers),
        )
        for (line, _), (rule, analysers) in merged.items()
    ]
    found.sort(key=lambda finding: finding.rank)
    if len(found) > MOST_FINDINGS:
        rule = Rule("warning", "unreadable", f"has {len(found) - MOST_FINDINGS} more findings, which are not shown")
        found = [*found[:MOST_FINDINGS], _about_file(name, rule)]
    return found


def _weight(rule: Rule) -> int:
    return ("danger", "warning", "information").index(rule.severity)


def _about_file(name: str, rule: Rule) -> Finding:
    return Finding(
        file=name,
        line=0,
        severity=rule.severity,
        category=rule.category,
        code="",
        sentence=sentence(0, rule.does, rule.severity, rule.category),
        analyser=_OURS,
    )


def _seen(name: str, text: str, modules: frozenset[str]) -> Iterator[Seen]:
    yield from ((line, rule, _OURS) for line, rule in text_findings(name, text[:MOST_CHARACTERS]))
    yield from ((0, rule, _OURS) for rule in (*_of_name(name), *_of_size(text)))
    if len(text) > MOST_CHARACTERS or not name.endswith(".py"):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns about odd escapes while it parses
            tree = parsed(text)
        if isinstance(tree, str):
            yield 0, Rule("danger", "unreadable", tree), _OURS
            return
        ours = [(line, rule, _OURS) for line, rule in code_findings(tree, modules)]
        yield from ours
        yield from bandit_findings(text)
    except (RecursionError, MemoryError, ValueError):
        yield 0, Rule("danger", "unreadable", "is nested too deeply to be read"), _OURS


def _of_size(text: str) -> Iterator[Rule]:
    count = len(lines_of(text))
    if len(text) > MOST_CHARACTERS:
        yield Rule("danger", "unreadable", f"has {len(text)} characters and was not checked as code")
    elif count > MOST_LINES:
        yield Rule("warning", "obfuscation", f"has {count} lines, more than anybody reads closely")


def _of_name(name: str) -> Iterator[Rule]:
    """Look at what a file is called: Python finds the request's files before everything else."""
    module = _module_of(name)
    if (
        name.endswith(".py")
        and name != RECIPE_FILE
        and module in stdlib_module_names | {n.partition(".")[0] for n in IMPORTABLE}
    ):
        yield Rule("danger", "replaced-code", f"would be taken for the library {visible_name(module)}")
    if PurePosixPath(name).name == RECIPE_FILE and name != RECIPE_FILE:
        yield Rule("warning", "obfuscation", f"has the name of {RECIPE_FILE}, which runs, and is another file")
