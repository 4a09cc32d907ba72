"""A review as JSON for a screen: what a data owner reads before deciding.

All text of a request is made visible here; that it is no markup is the page's part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any, TypeVar

from fedpriv.domain.approval import limits_in_words
from fedpriv.domain.difference import Difference, FileDifference
from fedpriv.domain.dry_run import DryRun
from fedpriv.domain.finding import LOOKED_FOR, Finding, visible
from fedpriv.domain.review import Review
from fedpriv.domain.summary import METRICS, TOPICS, Topic, in_bytes, in_time
from fedpriv.study.request import PLAN_FILE, RECIPE_FILE
from fedpriv.widgets.highlight import highlighted
from fedpriv.widgets.owner_state import ApprovalForm, Opened

MOST_FINDINGS = 200
_PAGE_LINES, _PAGE_CHARACTERS = 400, 100_000

_GROUPS: tuple[tuple[str, tuple[Topic, ...]], ...] = (
    ("What leaves", ("leaves", "numbers", "besides", "stays")),
    ("For how long", ("rounds", "time")),
    ("What it costs", ("privacy", "bytes")),
    ("What it is", ("task", "code", "model", "data", "with")),
)
_OUTCOMES = {
    "passed": "It ran to its end, and what it gave could leave.",
    "refused": "It ran to its end, but the gatekeeper would not let out what it gave:",
    "failed": "It did not come to its end:",
}
_KINDS = {"same": "the same", "changed": "differs", "added": "new", "removed": "missing"}

T = TypeVar("T")


def review_view(review: Review, form: ApprovalForm | None, opened: Opened) -> dict[str, Any]:
    """Return a review with one page of one file and one page of one difference: bounded, whatever the request holds."""
    decision = review.decision
    return {
        "study": review.study,
        "title": visible(review.title),
        "researcher": visible(review.researcher),
        "received_s": review.received_s,
        "decision": decision.decision,
        "reason": visible(decision.reason, 2000),
        "limits": [visible(phrase, 400) for phrase in limits_in_words(decision.limits)] if decision.limits else [],
        "ends_s": None if decision.limits is None else decision.limits.expires_s,
        "within_limits": review.within_limits,
        "summary": _summary(review),
        "checks": [{"passed": check.passed, "sentence": visible(check.sentence, 500)} for check in review.checks],
        "findings": [_finding(finding) for finding in review.findings[:MOST_FINDINGS]],
        "more_findings": max(0, len(review.findings) - MOST_FINDINGS),
        "grave": sum(finding.severity != "information" for finding in review.findings),
        "analysers": f"bandit {version('bandit')} and rules of fedpriv",
        "looked_for": ", ".join(LOOKED_FOR.values()),
        "dry_run": None if review.dry_run is None else _dry_run(review.dry_run),
        "is_stock": review.is_stock,
        "files": [_file_row(review, name) for name in _names(review)],
        "file": _file(review, opened),
        "comparisons": [_comparison(kind, title, found) for kind, title, found in _differences(review)],
        "change": _change(review, opened),
        "form": None if form is None else _form(form, given=decision.limits is not None),
    }


def _summary(review: Review) -> list[dict[str, Any]]:
    texts = {point.topic: visible(point.text, 5000) for point in review.summary}
    return [
        {"title": title, "points": [{"label": TOPICS[topic], "lines": _lines(topic, texts[topic])} for topic in topics]}
        for title, topics in _GROUPS
    ]


def _lines(topic: Topic, text: str) -> list[str]:
    return text.split("; ") if topic == "numbers" else [text]


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "file": visible(finding.file),
        "line": finding.line,
        "severity": finding.severity,
        "sentence": visible(finding.sentence, 1000),
        "code": visible(finding.code),
        "analyser": visible(finding.analyser),
    }


# -- files and differences, one page at a time -------------------------------------------------------------------------


def _names(review: Review) -> list[str]:
    return sorted(review.files, key=lambda name: (name != RECIPE_FILE, name == PLAN_FILE, name))


def _file_row(review: Review, name: str) -> dict[str, Any]:
    grave = sum(finding.file == name and finding.severity != "information" for finding in review.findings)
    stock = name == RECIPE_FILE and review.is_stock
    return {"name": visible(name, 400), "findings": grave, "note": "the stock recipe, to the byte" if stock else ""}


def _file(review: Review, opened: Opened) -> dict[str, Any]:
    name = opened.file if opened.file in review.files else _names(review)[0]
    lines = highlighted(name, review.files[name])
    cuts = pages(lines, lambda line: sum(len(text) for _, text in line))
    line = opened.file_line if opened.file == name else 0
    page = opened.file_page if opened.file == name else 0
    if line:
        page = next((number for number, (begin, end) in enumerate(cuts) if begin < line <= end), 0)
    page = min(page, len(cuts) - 1)
    begin, end = cuts[page]
    marks = {finding.line: finding.severity for finding in reversed(review.findings) if finding.file == name}
    return {
        "name": visible(name, 400),
        "line": line,
        "page": page,
        "pages": len(cuts),
        "total": len(lines),
        "lines": [[number, marks.get(number, ""), lines[number - 1]] for number in range(begin + 1, end + 1)],
    }


def _differences(review: Review) -> Iterator[tuple[str, str, Difference]]:
    if review.predecessor is not None:
        before = review.predecessor
        yield "before", f"Since request {before.study[:12]}, which you approved", before.difference
    yield "stock", "The code against the stock recipe", review.difference
    if review.template is not None:
        yield "template", "How an admission is told, against the stock template", review.template


def _comparison(kind: str, title: str, found: Difference) -> dict[str, Any]:
    return {
        "title": title,
        "words": visible(found.in_words, 1000),
        "plan": [
            [visible(c.setting), visible(c.before, 400), visible(c.after, 400)] for c in found.plan[:MOST_FINDINGS]
        ],
        "files": [
            {
                "id": f"{kind}:{file.name}",
                "name": visible(file.name, 400),
                "kind": _KINDS[file.kind],
                "note": _note(file),
            }
            for file in found.files
        ],
    }


def _note(file: FileDifference) -> str:
    if file.layout_only:
        return "comments, blank lines and spacing only"
    return "line ends only" if file.kind == "changed" and not file.lines else ""


def _change(review: Review, opened: Opened) -> dict[str, Any] | None:
    """Return a page of the difference that is open, or of the first there is; None where nothing differs."""
    known = {f"{kind}:{file.name}": file for kind, _, found in _differences(review) for file in found.changed}
    if not known:
        return None
    name = opened.change if opened.change in known else next(iter(known))
    cuts = pages(known[name].lines, len)
    page = min(opened.change_page if opened.change == name else 0, len(cuts) - 1)
    begin, end = cuts[page]
    return {"id": name, "page": page, "pages": len(cuts), "lines": list(known[name].lines[begin:end])}


def pages(lines: Sequence[T], size: Any) -> list[tuple[int, int]]:
    """Return where pages begin and end, so that none is too long to be drawn at once; at least one page."""
    cuts, begin, characters = [], 0, 0
    for number, line in enumerate(lines):
        characters += size(line)
        if number > begin and (number - begin >= _PAGE_LINES or characters > _PAGE_CHARACTERS):
            cuts.append((begin, number))
            begin, characters = number, size(line)
    return [*cuts, (begin, len(lines))]


# -- the dry run and the form ------------------------------------------------------------------------------------------


def _dry_run(result: DryRun) -> dict[str, Any]:
    facts = [
        ("sandbox", result.walls_in_words),
        ("took", f"{in_time(result.seconds)} for {result.steps} steps with {result.threads} thread(s)"),
    ]
    if result.round_s is not None:
        facts.append(("a real round", f"about {in_time(result.round_s)} (estimated)"))
    if result.peak_memory_bytes:
        facts.append(("memory", f"{in_bytes(result.peak_memory_bytes)} at most"))
    leaving = [(name, f"{value:g}: {METRICS.get(name, '')}") for name, value in result.metrics.items()]  # pyright: ignore
    return {
        "outcome": result.outcome,
        "text": f"{_OUTCOMES[result.outcome]} {visible(result.reason, 500)}".strip(),
        "tried_s": result.tried_s,
        "walled": result.walls_in_words != "NONE",
        "attempts": [visible(attempt) for attempt in result.tried],
        "facts": [[name, visible(text, 500)] for name, text in facts],
        "leaving": [[visible(name), visible(text, 300)] for name, text in leaving],
        "log": [visible(line) for line in result.log],
    }


def _form(form: ApprovalForm, *, given: bool) -> dict[str, Any]:
    return {
        "given": given,
        "limits": form.limits.model_dump(mode="json"),
        "metrics": [
            {"name": metric.name, "words": METRICS[metric.name], "required": metric.required} for metric in form.metrics
        ],
        "rounds_most": form.rounds_most,
        "seconds_most": form.seconds_most,
        "cohort_least": form.cohort_least,
        "cohort_most": form.cohort_most,
        "epsilon_most": form.epsilon_most,
    }
