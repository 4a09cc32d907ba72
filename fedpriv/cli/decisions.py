"""``fedpriv domain approve|reject|revoke``: the data owner's word on a request, and how far it goes."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fedpriv.cli.options import Folder, StudyId
from fedpriv.domain import Domain, Terms
from fedpriv.domain.approval import limits_in_words
from fedpriv.domain.log_tail import last_lines
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.study import validate_section

console = Console()

Reason = Annotated[str, typer.Option(help="What the researcher reads.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``fedpriv domain``."""
    for command in (approve, reject, revoke, release, withhold, log):
        app.command()(command)


def approve(
    folder: Folder,
    study: StudyId,
    rounds: Annotated[int | None, typer.Option(min=1, help="At most so many rounds; by default the plan's.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Most of the privacy budget that it may spend.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="The approval ends after so many days.")] = None,
    seconds: Annotated[
        int | None, typer.Option(min=5, help="A local round stops after so many, with the work so far.")
    ] = None,
    hours: Annotated[str | None, typer.Option(help="Run the model only then, local time: 19:00-07:00.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="A number that may leave; repeatable. By default all of the plan.")
    ] = None,
    minimum_cohort: Annotated[
        int | None, typer.Option(min=2, help="Fewest domains in a round and in a sum; never below domain.yaml's.")
    ] = None,
    release: Annotated[bool, typer.Option(help="Also approve handing the final adapter to the researcher.")] = False,
) -> None:
    """Approve a request within limits; a running service tells the researcher at its next poll.

    Again on an approved request: changes what is given and keeps the rest.
    """
    terms = validate_section(
        Terms,
        {
            "rounds": rounds,
            "epsilon": epsilon,
            "days": days,
            "seconds": seconds,
            "hours": hours,
            "metrics": metric or None,
            "minimum_cohort": minimum_cohort,
            "release": release or None,
        },
        source="the options",
    )
    decision = Domain.open(folder).approve(study, terms)
    console.print(f"[green]Approved[/] {decision.study[:12]}:")
    for phrase in limits_in_words(decision.limits) if decision.limits else ():
        console.print(f"  - {escape(phrase)}")
    console.print(f"To withdraw it at any moment: fedpriv domain revoke {escape(str(folder))} {decision.study[:12]}")


def reject(folder: Folder, study: StudyId, reason: Reason) -> None:
    """Reject a request; the researcher reads the reason. An approval is withdrawn with `revoke`."""
    decision = Domain.open(folder).reject(study, reason)
    console.print(f"Rejected {decision.study[:12]}.")


def revoke(folder: Folder, study: StudyId, reason: Reason = "the data owner withdrew it") -> None:
    """Withdraw an approval, also in the middle of a round: training stops within one poll, nothing more leaves."""
    domain = Domain.open(folder)
    decision = domain.revoke(study, reason)
    console.print(f"Withdrew the approval of {decision.study[:12]}. Nothing further is run or sent for it.")
    if not domain.status()["running"]:
        console.print("The service does not run; it tells the researcher as soon as it does.")


def release(folder: Folder, study: StudyId) -> None:
    """Hand over the final adapter that the researcher asked for. What was handed over cannot be taken back."""
    decision = Domain.open(folder).release(study)
    console.print(f"You agreed to hand over the adapter {decision.adapter_sha256[:12]} once enough domains agree.")


def withhold(folder: Folder, study: StudyId, reason: Reason) -> None:
    """Keep the final adapter that the researcher asked for; they read the reason."""
    decision = Domain.open(folder).withhold(study, reason)
    console.print(f"The adapter {decision.adapter_sha256[:12]} stays here.")


def log(
    folder: Folder,
    study: StudyId,
    lines: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many of its last lines.")] = 40,
) -> None:
    """Show what the code printed in its last job here, and what the worker said. It may hold notes: nothing leaves."""
    domain = Domain.open(folder)
    place = StudyFolder(domain.folder.study(domain.requests.find(study)))
    logs = {"the worker itself": place.worker_log()}
    if (last := place.last_log()) is not None:
        logs = {last.parent.name: last} | logs
    found = {title: path for title, path in logs.items() if path is not None}
    if not found:
        console.print("No job of this study has run here yet.")
    for title, path in found.items():
        console.print(f"{escape(title)}:", highlight=False)
        for line in last_lines(path, lines):
            console.print(escape(line), highlight=False, soft_wrap=True)
