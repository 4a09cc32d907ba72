"""``fedpriv study``: what a researcher does."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedpriv.cli.history_view import print_history
from fedpriv.cli.new_study import new
from fedpriv.cli.options import DEFAULT_HOME, Home, Name
from fedpriv.cli.peers import peers
from fedpriv.cli.sample import sample
from fedpriv.cli.view import REPORT_TO_HELP, StudyView, quieten_transformers
from fedpriv.cli.watch import watch
from fedpriv.errors import ConfigError
from fedpriv.protection import fingerprint_words
from fedpriv.researcher import Researcher, ResearcherConfig, Study
from fedpriv.researcher.ending import result_of
from fedpriv.researcher.event_words import link_in_words, quality_in_words
from fedpriv.researcher.events import Event, Waiting
from fedpriv.study import validate_section
from fedpriv.study.protection_choice import ProtectionLevel
from fedpriv.transport import checked_address
from fedpriv.widgets.study_process import start_run

if TYPE_CHECKING:
    from fedpriv.researcher.sensitivity import SensitivityMap

app = typer.Typer(no_args_is_help=True)
console = Console()

ReportTo = Annotated[list[str] | None, typer.Option(help=REPORT_TO_HELP)]
Detach = Annotated[bool, typer.Option("--detach", help="Run on in the background, also when this terminal is closed.")]
_LEVELS = get_args(ProtectionLevel)
_ROWS_SHOWN = 24


@app.command()
def init(
    email: Annotated[str, typer.Option(help="Your address; lower case.")],
    store: Annotated[str, typer.Option(help="Folder or URL of the store that all parties reach.")],
    name: Annotated[str, typer.Option(help="A short name.")] = "researcher",
    home: Home = DEFAULT_HOME,
) -> None:
    """Make a researcher's home with keys. Prints the fingerprint that data owners pin."""
    given = {"name": name, "email": email, "store": checked_address(store)}
    config = validate_section(ResearcherConfig, given, source="the options")
    researcher = Researcher.create(home, config)
    researcher.publish_identity()
    console.print(f"Made your home in {escape(str(home))}.")
    console.print(f"Fingerprint: [bold]{researcher.keys.fingerprint}[/]", soft_wrap=True)
    console.print(f"  by phone:  {fingerprint_words(researcher.keys.fingerprint)}")
    console.print("Next: each data owner runs `fedpriv domain trust FOLDER EMAIL=FINGERPRINT` with it.")


app.command()(peers)
app.command()(new)


@app.command()
def sensitivity(
    name: Name,
    by: Annotated[
        str, typer.Option(help="attack: what is read from each tensor; spread: how gradients differ from note to note.")
    ] = "attack",
    seal: Annotated[float, typer.Option(help="Part of what tells notes apart that stays sealed, up to 1.")] = 0.9,
    level: Annotated[str, typer.Option(help="Level of the other tensors.")] = "masked",
    notes: Annotated[int, typer.Option(min=2, max=1000, help="How many single notes to measure.")] = 16,
    examples: Annotated[
        Path | None,
        typer.Option(help='JSON lines of {"text": ...} that anybody may see; by default the mock notes of a domain.'),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the rules into the draft's plan.yaml.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Measure on made-up notes which tensors give notes away, and give rules for a hybrid plan.

    After the plan's steps of one round (before them, half of the gradients are zero), an attack tries to read passages
    from each tensor alone: all from which it reads something stay sealed, the rest get --level. With --by spread, which
    is faster, single notes' gradients are compared, and the tensors that differ most stay sealed.
    """
    from fedpriv.researcher.sensitivity import MapBasis, keep_map, sensitivity_map, write_into_draft
    from fedpriv.training.base_model import ensure_model

    if level not in _LEVELS:
        raise ConfigError(f"There is no protection {level!r}", todo=f"choose one of {', '.join(_LEVELS[1:])}")
    if by not in get_args(MapBasis):
        raise ConfigError(f"There is no map by {by!r}", todo=f"choose --by {' or --by '.join(get_args(MapBasis))}")
    study = Study.open(Researcher.open(home), name)
    if write:
        study.require_draft()  # before the measurement, which takes a while
    plan = study.plan
    model = ensure_model(plan.base_model.name)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    quieten_transformers()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bars = {stage: progress.add_task(stage, total=None) for stage in ("training", "measuring")}
        found = sensitivity_map(
            plan,
            model,
            by=cast("MapBasis", by),
            seal=seal,
            level=cast("ProtectionLevel", level),
            notes=notes,
            examples=examples,
            threads=os.cpu_count() or 1,
            report=lambda stage, done, total: progress.update(bars[stage], completed=done, total=total),
        )
    path = keep_map(study, found)
    if as_json:
        typer.echo(json.dumps(found.as_json()))
    else:
        _print_map(found)
        console.print(f"Wrote {escape(str(path))}.", soft_wrap=True)
    if write:
        backup = write_into_draft(study, found)
        console.print(f"Wrote the rules into plan.yaml; the plan before, with its comments, is {escape(backup.name)}.")
    elif not as_json:
        console.print("To use it, put this into plan.yaml, or run the command again with --write:\n")
        typer.echo(found.rules_text())
    if not as_json:
        console.print(f"Each data owner must allow {escape(level)} in domain.yaml (policy > protection).")
        console.print("The map is a guide, no guarantee: docs/plan.md says what it assumes.")


def _print_map(found: SensitivityMap) -> None:
    title = f"{found.measured.notes} single notes, after {found.measured.steps} steps on made-up notes"
    table = Table(title=title)
    table.add_column("tensor", overflow="fold")
    attacked = ("named",) if found.by == "attack" else ()
    for heading in ("parameters", *attacked, "share", "so far"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("level")
    sealed, rows = {share.tensor for share in found.sealed}, found.as_json()["tensors"]
    so_far = 0.0
    for number, share in enumerate(found.shares):
        so_far += share.share
        if number < _ROWS_SHOWN:
            level = "sealed" if share.tensor in sealed else found.level
            row = rows[number]
            named = (f"{row['named']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",) if attacked else ()
            name = share.tensor.removeprefix("base_model.model.model.").removesuffix(".weight")
            cells = (f"{share.parameters:,}", *map(escape, named), f"{share.share:.1%}", f"{so_far:.1%}", level)
            table.add_row(escape(name), *cells)
    console.print(table)
    if len(found.shares) > _ROWS_SHOWN:
        console.print(f"... and {len(found.shares) - _ROWS_SHOWN} more in the file.")
    total = sum(share.parameters for share in found.shares)
    other = sum(share.parameters for share in found.others)
    console.print(
        f"Sealed: {len(sealed)} of {len(found.shares)} tensors. {found.level}: the other {len(found.others)}, "
        f"{other / total:.0%} of the parameters with {sum(s.share for s in found.others):.1%} of "
        f"{'what the attack names' if attacked else 'the differences'}."
    )


@app.command()
def submit(name: Name, home: Home = DEFAULT_HOME) -> None:
    """Send the code request to every domain of the cohort."""
    study = Study.open(Researcher.open(home), name)
    study_id = study.submit(on_wait=lambda what: console.print(f"… {escape(what)}"))
    console.print(f"Submitted to {len(study.plan.cohort)} domains; the study id is {study_id[:12]}.")
    console.print(
        f"Next: the data owners decide; `fedpriv study run {escape(name)}` waits for them and starts the rounds."
    )


@app.command()
def run(name: Name, report_to: ReportTo = None, detach: Detach = False, home: Home = DEFAULT_HOME) -> None:
    """Wait for the approvals and run the rounds, with a live view."""
    _run(name, home, resume=False, report_to=report_to, detach=detach)


@app.command()
def resume(name: Name, report_to: ReportTo = None, detach: Detach = False, home: Home = DEFAULT_HOME) -> None:
    """Go on with a study that was paused, stopped or killed; no domain trains twice."""
    study = Study.open(Researcher.open(home), name)
    if study.status()["finished"]:
        _run(name, home, resume=True, report_to=report_to, detach=detach)
        return
    study.unpause()
    if study.status()["running"]:
        console.print(f"{escape(name)} goes on in the process that runs it.")
        return
    _run(name, home, resume=True, report_to=report_to, detach=detach)


@app.command()
def events(
    name: Name,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what happens, until the study is finished.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the history's JSON lines.")] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Show what happened, to whom and when; in another terminal than the one that runs the study."""
    print_history(console, Study.open(Researcher.open(home), name), follow=follow, as_json=as_json)


app.command()(watch)


@app.command()
def pause(name: Name, home: Home = DEFAULT_HOME) -> None:
    """Begin no further round, also in a study that runs in another process."""
    after = Study.open(Researcher.open(home), name).pause()
    console.print(f"{escape(name)} pauses {_after(after)}; `fedpriv study resume {escape(name)}` goes on.")


@app.command()
def step(
    name: Name,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="So many more rounds.")] = 1,
    home: Home = DEFAULT_HOME,
) -> None:
    """Pause after some more rounds; a study that waits goes on until then."""
    after = Study.open(Researcher.open(home), name).step(rounds)
    console.print(f"{escape(name)} pauses {_after(after)}; `fedpriv study resume {escape(name)}` goes on.")


@app.command()
def stop(name: Name, home: Home = DEFAULT_HOME) -> None:
    """End a study's run, wherever it is, in whatever process; everything is kept."""
    study = Study.open(Researcher.open(home), name)
    running = study.status()["running"]
    study.stop()
    words = "stops now" if running else "does not run"
    console.print(f"{escape(name)} {words}; `fedpriv study resume {escape(name)}` goes on in the middle of its round.")


@app.command("set")
def set_(
    name: Name,
    alpha: Annotated[
        float | None, typer.Option(min=0, max=4, help="Exponent of the links' speed in the weights.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, max=86_400, help="Seconds without progress after which a domain is late.")
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Change how a study goes on, from the next round on; the plan that was approved stays as it is."""
    changes = {"alpha": alpha, "patience_s": patience}
    given = {key: value for key, value in changes.items() if value is not None}
    if not given:
        raise ConfigError("There is nothing to change", todo="give --alpha or --patience")
    steering = Study.open(Researcher.open(home), name).adjust(**given)
    shown = {"alpha": steering.alpha, "patience": steering.patience_s}
    console.print(", ".join(f"{key} {value}" for key, value in shown.items() if value is not None) + ".")


def _after(round_number: int) -> str:
    return f"after round {round_number}" if round_number else "before its first round"


@app.command()
def status(
    name: Name, home: Home = DEFAULT_HOME, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Show where a study is."""
    state = Study.open(Researcher.open(home), name).status()
    if as_json:
        typer.echo(json.dumps(state))
        return
    table = Table(show_header=False, box=None)
    for key, value in state.items():
        shown = {email: link_in_words(**link) for email, link in value.items()} if key == "links" else value
        text = ", ".join(f"{k}: {v}" for k, v in shown.items()) if isinstance(shown, dict) else str(shown)
        table.add_row(key.replace("_", " "), escape(text))
    console.print(table)
    if state["edited"]:
        console.print(
            "[yellow]plan.yaml or a code file was changed since the study was submitted:[/] what was submitted is "
            "shown and counts. Next: undo the change, or make a new study with `fedpriv study new`.",
            soft_wrap=True,
        )


@app.command()
def release(
    name: Name,
    out: Annotated[Path, typer.Option(help="Where the PEFT folder goes.")] = Path("adapter"),
    home: Home = DEFAULT_HOME,
) -> None:
    """Ask the data owners for the adapter, wait for their decisions, and write it as a PEFT folder."""

    def say(event: Event) -> None:
        if isinstance(event, Waiting):
            console.print(f"… {escape(event.domain)}: {escape(event.what)}; its data owner decides")

    target = Study.open(Researcher.open(home), name).release(out, say)
    console.print(
        f"Wrote the adapter with its model card to {escape(str(target))}; peft.PeftModel.from_pretrained loads it."
    )


app.command()(sample)


@app.command()
def ping(name: Name, home: Home = DEFAULT_HOME) -> None:
    """Ask every domain of an approved study for an answer, and show how long it took."""
    for email, seconds in sorted(Study.open(Researcher.open(home), name).ping().items()):
        console.print(f"{escape(email)} answered after {seconds[0]:.1f} s.")


@app.command()
def exclude(
    name: Name,
    email: Annotated[str, typer.Argument(help="The domain that is not waited for any more.")],
    reason: Annotated[str, typer.Option(help="What people are shown.")] = "",
    home: Home = DEFAULT_HOME,
) -> None:
    """Go on without a domain that disappeared, also while the study runs. Its late update is never read."""
    study = Study.open(Researcher.open(home), name)
    still_needed = study.exclude(email, reason)
    console.print(f"{escape(email)} is excluded from {escape(name)}.")
    if still_needed:
        console.print(escape(still_needed))
    elif result_of(study.folder) is not None:
        console.print(
            f"The study is finished and stays as it was; `fedpriv study release {escape(name)}` asks the others."
        )
    else:
        console.print(f"A running study goes on without it; otherwise run `fedpriv study resume {escape(name)}`.")


@app.command()
def readmit(
    name: Name,
    email: Annotated[str, typer.Argument(help="The domain that takes part again.")],
    home: Home = DEFAULT_HOME,
) -> None:
    """Let a domain that was excluded take part again from the next round on; it opens the sums it missed first."""
    Study.open(Researcher.open(home), name).readmit(email)
    console.print(f"{escape(email)} takes part in {escape(name)} again from the next round on.")


@app.command()
def skip(name: Name, home: Home = DEFAULT_HOME) -> None:
    """Leave the round at work without a sum, because a domain that it cannot do without is gone for good.

    The adapter stays as it is, and the next round begins. What the domains trained in this round is lost where they
    have confirmed its sum already: nothing that they confirmed ever enters another one.
    """
    number = Study.open(Researcher.open(home), name).skip_round()
    console.print(f"Round {number} of {escape(name)} is skipped: it gets no sum, and the next round begins.")
    console.print(f"A study that runs does it within seconds; otherwise run `fedpriv study resume {escape(name)}`.")


def _perplexity(loss: float) -> str:
    return f"{math.exp(min(loss, 700)):.4g}"


def _run(name: str, home: Path, *, resume: bool, report_to: list[str] | None, detach: bool) -> None:
    study = Study.open(Researcher.open(home), name)
    if study.status()["finished"]:
        console.print(f"{escape(name)} is finished: nothing is run, and nobody is asked again.")
    elif detach:
        study.folder.submitted()  # said here, rather than in the background's log
        running = study.status()["running"]
        if not running:  # a second one would empty the log of the first
            start_run(study, resume=resume, report_to=report_to or ())
        words = "runs already" if running else "runs in the background"
        console.print(f"{escape(name)} {words}. Next: `fedpriv study watch {escape(name)}`.")
        return
    with StudyView(console) as view:
        finished = study.run(view, resume=resume, report_to=report_to)
    asked = study.folder.submitted().plan.task.is_predictive  # of a yes or a no, a perplexity tells nothing
    words = f" (perplexity {_perplexity(finished.loss_before)}, then {_perplexity(finished.loss_after)})"
    console.print(
        f"Held-out loss {finished.loss_before:.4f} before, [bold]{finished.loss_after:.4f}[/] after"
        f"{'' if asked else words}."
    )
    if finished.quality:
        console.print(f"Answers before: {quality_in_words(finished.quality_before)}")
        console.print(f"Answers after:  [bold]{quality_in_words(finished.quality)}[/]")
    console.print(f"Next: `fedpriv study release {escape(name)} --out adapter`.")
