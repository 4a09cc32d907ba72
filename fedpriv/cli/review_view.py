"""A review in a terminal: what a data owner reads before deciding. It shows, and decides nothing."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from importlib.metadata import version

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from fedpriv.domain.approval import limits_in_words
from fedpriv.domain.difference import Difference, FileDifference
from fedpriv.domain.domain import since as how_long
from fedpriv.domain.dry_run import DryRun, OnStep
from fedpriv.domain.finding import LOOKED_FOR, Finding, lines_of, visible
from fedpriv.domain.review import Review
from fedpriv.domain.summary import METRICS, TOPICS, in_bytes, in_time
from fedpriv.domain.trial import UNKNOWN_WALLS
from fedpriv.study.request import PLAN_FILE, RECIPE_FILE

_COLOURS = {"danger": "bold red", "warning": "yellow", "information": "cyan"}
_LINE_COLOURS = {"+": "green", "-": "red", "@": "cyan"}
_LONGEST_LINE = 20_000
_OUTCOMES = {
    "passed": ("green", "It ran to its end, and what it gave could leave."),
    "refused": ("red", "It ran to its end, but the gatekeeper would not let out what it gave:"),
    "failed": ("red", "It did not come to its end:"),
}


def print_review(console: Console, review: Review, *, folder: str, files: bool = False, since: bool = False) -> None:
    """Print a review from what matters most to what is for reference.

    Guarantee: no text of the request reaches the terminal as markup or with a control character in it.

    Parameters
    ----------
    folder : str
        The domain's folder as the person typed it, for the commands to type next.
    files : bool
        Whether to print the stock recipe's text, too.
    since : bool
        Whether to compare with the last approved request in the place of the stock recipe.
    """
    _headline(console, review)
    _summary(console, review)
    _checks(console, review)
    _findings(console, review.findings)
    if review.dry_run is not None:
        print_dry_run(console, review.dry_run)
    _template(console, review)
    _differences(console, review, since=since)
    _files(console, review, everything=files)
    _decision(console, review, folder)


def _rule(console: Console, title: str) -> None:
    console.print()
    console.rule(Text(title, "bold"), align="left", style="dim")


def _headline(console: Console, review: Review) -> None:
    console.rule(Text.assemble("Request ", (review.study[:12], "bold"), ": ", visible(review.title)))
    console.print(Text.assemble("From ", (review.researcher, "bold"), f", {how_long(review.received_s)} ago."))
    grave = sum(finding.severity != "information" for finding in review.findings)
    limits = ("Within your limits", "green") if review.within_limits else ("OUTSIDE your limits", "bold red")
    found = (f"{grave} grave findings in the code", "bold red") if grave else ("no grave finding in the code", "green")
    console.print(Text.assemble(limits, "; ", found, "."))
    console.print(Text(f"bundle {review.study[:32]}…, code {review.code[:16]}…", "dim"))


def _summary(console: Console, review: Review) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", width=max(map(len, TOPICS.values())))
    grid.add_column(overflow="fold")
    for point in review.summary:
        text = visible(point.text, 5000)
        grid.add_row(TOPICS[point.topic], Text(text.replace("; ", ";\n") if point.topic == "numbers" else text))
    console.print()
    console.print(grid)


def _checks(console: Console, review: Review) -> None:
    _rule(console, "Your limits (domain.yaml)")
    grid = Table.grid(padding=(0, 2))
    for check in review.checks:
        mark = Text("yes", "green") if check.passed else Text("NO", "bold red")
        grid.add_row(mark, Text(visible(check.sentence, 500)))
    console.print(grid)


def _findings(console: Console, findings: tuple[Finding, ...]) -> None:
    _rule(console, "Static check of the code")
    by = f"bandit {version('bandit')} and rules of fedpriv"
    if not findings:
        looked = ", ".join(LOOKED_FOR.values())
        console.print(Text.assemble(("Nothing found", "green"), f" by {by}. Looked for: {looked}."))
    else:
        console.print(_table_of(findings))
        counts = {name: sum(f.severity == name for f in findings) for name in _COLOURS}
        console.print(Text(f"Found by {by}. {'; '.join(f'{name}: {n}' for name, n in counts.items() if n)}."))
    console.print(Text("It helps you to read and proves nothing: the sandbox and the gatekeeper are the walls.", "dim"))


def _table_of(findings: tuple[Finding, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), expand=True)
    table.add_column("how grave", no_wrap=True)
    table.add_column("where", overflow="fold", min_width=12)
    table.add_column("what", overflow="fold", ratio=1)
    for finding in findings:
        where = f"{finding.file}:{finding.line}" if finding.line else finding.file
        what = Text(finding.sentence)
        if finding.code:
            what.append(f"\n  {finding.code}", "dim")
        if finding.analyser != "fedpriv":
            what.append(f"\n  found by {finding.analyser}", "dim italic")
        table.add_row(Text(finding.severity, _COLOURS[finding.severity]), Text(visible(where)), what)
    return table


def _differences(console: Console, review: Review, *, since: bool) -> None:
    before = review.predecessor
    if since and before is None:
        _rule(console, "Since the last approved request")
        console.print("You approved no earlier request with this researcher and title.")
    if before is not None:
        _rule(console, f"Since request {before.study[:12]}, which you approved")
        _plan_changes(console, before.difference)
        console.print(Text(before.difference.in_words))
        if since:
            _code_changes(console, before.difference)
        elif before.difference.changed:
            console.print(Text("Show these changes with --since.", "dim"))
    if not since or before is None:
        _rule(console, "The code against the stock recipe")
        console.print(Text(review.difference.in_words))
        _code_changes(console, review.difference)


def _template(console: Console, review: Review) -> None:
    if review.template is None:
        return
    _rule(console, "How an admission is told, against the stock template")
    console.print(Text("Nothing in a template is run; its fields are filled in from your records.", "dim"))
    console.print(Text(review.template.in_words) if not review.template.changed else "")
    _code_changes(console, review.template)


def _plan_changes(console: Console, difference: Difference) -> None:
    if not difference.plan:
        console.print("The plan is the same.")
        return
    grid = Table.grid(padding=(0, 2))
    for change in difference.plan:
        old, new = visible(change.before), visible(change.after)
        grid.add_row(Text(change.setting, "bold"), Text.assemble((old, "red"), " -> ", (new, "green")))
    console.print(grid)


def _code_changes(console: Console, difference: Difference) -> None:
    for file in difference.changed:
        if file.kind == "added":
            console.print(Text(f"{visible(file.name)} is new: see below.", "yellow"))
            continue
        note = " (comments, blank lines and spacing only)" if file.layout_only else ""
        note = note if file.lines else " (line ends only)"
        console.print(Text(f"{visible(file.name)}{note}", "bold"))
        console.print(_lines_of(file))


def _lines_of(file: FileDifference) -> Text:
    shown = Text()
    for line in file.lines:
        shown.append(f"{line}\n", _LINE_COLOURS.get(line[:1], ""))
    return shown


def _files(console: Console, review: Review, *, everything: bool) -> None:
    for name in sorted(review.files, key=lambda name: (name != RECIPE_FILE, name == PLAN_FILE, name)):
        _rule(console, visible(name))
        if name == RECIPE_FILE and review.is_stock and not everything:
            console.print(Text("The stock recipe, to the byte; show it with --files.", "dim"))
            continue
        text = "\n".join(visible(line, _LONGEST_LINE) for line in lines_of(review.files[name]))
        kind = {"py": "python", "yaml": "yaml", "json": "json", "md": "markdown"}.get(name.rpartition(".")[2], "text")
        console.print(Syntax(text, kind, line_numbers=True, word_wrap=True, background_color="default"))


def _decision(console: Console, review: Review, folder: str) -> None:
    decision = review.decision
    _rule(console, "Your decision")
    why = f" ({visible(decision.reason, 2000)})" if decision.reason else ""
    console.print(Text.assemble("Now: ", (decision.decision, "bold"), why, "."))
    place = shlex.quote(folder)
    for phrase in limits_in_words(decision.limits) if decision.limits else ():
        console.print(Text(f"  - {phrase}"))
    for command, why in _commands(review, place):
        console.print(Text.assemble("  ", (command, "bold")), Text(f"    {why}", "dim"), sep="\n", soft_wrap=True)
    if not review.within_limits:
        console.print(Text("It is outside your limits, so it cannot be approved as it is.", "red"))


def _commands(review: Review, place: str) -> Iterator[tuple[str, str]]:
    """Yield what a data owner can type next, and what it does."""
    state, study = review.decision.decision, review.study[:12]
    which = f"{place} {study}"
    if review.dry_run is None and state != "rejected":
        yield f"fedpriv domain try {which}", "run it on made-up patients first"
    if state != "rejected":
        yield f"fedpriv audit leakage {study} --domain {place}", "measure what others could read from your updates"
    if review.within_limits and state != "approved":
        yield f"fedpriv domain approve {which}", "allow the rounds of the plan"
        yield f"fedpriv domain approve {which} --rounds 1", "allow fewer"
    limits = review.decision.limits
    if review.within_limits and limits is not None and not limits.release:
        yield f"fedpriv domain approve {which} --release", "at the end: hand the trained adapter over"
    if state == "approved":
        yield f'fedpriv domain revoke {which} --reason "..."', "withdraw the approval; it counts at once"
    elif state == "pending":
        yield f'fedpriv domain reject {which} --reason "..."', "the researcher reads the reason"


# -- dry runs --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def trying(console: Console) -> Iterator[OnStep]:
    """Show a dry run's progress while the block runs; the value is what to call with (step, steps)."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting the sandbox", total=None)

        def on_step(step: int, steps: int) -> None:
            progress.update(task, description="training on made-up patients", completed=step, total=steps)

        yield on_step


def print_dry_run(console: Console, result: DryRun) -> None:
    """Print what a dry run showed."""
    _rule(console, f"Dry run on made-up patients, {how_long(result.tried_s)} ago")
    colour, words = _OUTCOMES[result.outcome]
    console.print(Text.assemble((words, colour), f" {visible(result.reason, 500)}" if result.reason else ""))
    grid = Table.grid(padding=(0, 2))
    style = "bold red" if result.walls_in_words == "NONE" else "yellow" if result.walls == UNKNOWN_WALLS else ""
    grid.add_row("sandbox", Text(visible(result.walls_in_words), style))
    if result.tried:
        grid.add_row(Text("it tried", "bold red"), Text(visible("; ".join(result.tried), 500), "bold red"))
    grid.add_row("took", f"{in_time(result.seconds)} for {result.steps} steps with {result.threads} thread(s)")
    if result.round_s is not None:
        grid.add_row("a real round", f"about {in_time(result.round_s)} (estimated)")
    if result.peak_memory_bytes:
        grid.add_row("memory", f"{in_bytes(result.peak_memory_bytes)} at most")
    for name, value in result.metrics.items():
        grid.add_row("would leave", Text(f"{name} = {value:g}: {METRICS.get(name, '')}"))  # pyright: ignore
    console.print(grid)
    if result.log:
        console.print(Text("The end of its log (only you see it):", "dim"))
        for line in result.log:
            console.print(Text(f"  {visible(line)}", "dim"), soft_wrap=True)
    console.print(
        Text("On made-up patients code can behave differently than on real ones: the walls are the same.", "dim")
    )
