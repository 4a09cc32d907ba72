"""``fedpriv domain``: what a data owner and the engineer of a domain do."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedpriv.cli import decisions
from fedpriv.cli.backup import accept_loss, backup, restore
from fedpriv.cli.budget import budget
from fedpriv.cli.new_domain import init, parse_pin
from fedpriv.cli.options import AsJson, Folder, StudyId
from fedpriv.cli.schema import compare, refresh, schema
from fedpriv.domain import Domain
from fedpriv.domain.domain import since
from fedpriv.domain.folder import CONFIG_FILE
from fedpriv.domain.known_keys import KnownKey, keys_of_words, known_keys
from fedpriv.domain.ledger import as_text
from fedpriv.errors import ConfigError
from fedpriv.files import write_atomic
from fedpriv.study import Plan

app = typer.Typer(no_args_is_help=True)
console = Console()

decisions.add_to(app)


app.command()(init)


@app.command()
def trust(
    folder: Folder, researcher: Annotated[str, typer.Argument(help="EMAIL=FINGERPRINT, compared over the phone.")]
) -> None:
    """Pin a researcher who may send requests. Takes effect when the service is started again."""
    domain = Domain.open(folder)
    pin = parse_pin(researcher)
    domain.folder.pin(pin)
    domain.ledger.append("researcher.pinned", email=pin.email, fingerprint=pin.fingerprint)
    console.print(f"{escape(pin.email)} may now send requests to {escape(domain.config.name)}.")
    if domain.service()["running"]:
        console.print("The service runs and does not know it yet. Next: start it again.")


@app.command()
def serve(
    folder: Folder,
    once: Annotated[bool, typer.Option(help="Poll once and stop.")] = False,
    log_format: Annotated[
        str, typer.Option("--log-format", help="text: sentences for people; json: a line for each event, for machines.")
    ] = "text",
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve the domain until Ctrl-C: take requests, carry out approved tickets. Safe to kill and start again."""
    from fedpriv.domain.service import DomainService

    if log_format not in ("text", "json"):
        raise ConfigError(f"There is no log format {log_format!r}", todo="choose --log-format text or json")
    domain = Domain.open(folder)

    def say(sentence: str) -> None:
        typer.echo(f"{time.strftime('%H:%M:%S')} {domain.config.name}: {sentence}")

    if log_format == "json":
        service = DomainService(domain=domain, notify=lambda sentence: None, write_log=typer.echo)
    else:
        service = DomainService(domain=domain, notify=say)
    service.run(parent=parent, once=once)


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Show what the domain's service is doing, and since when."""
    domain = Domain.open(folder)
    state = domain.status()
    if as_json:
        typer.echo(json.dumps(state))
        return
    running = "[green]running[/]" if state["running"] else "[yellow]not running[/]"
    console.print(f"[bold]{escape(domain.config.name)}[/] ({escape(domain.config.email)}): {running}")
    if "since_s" in state:
        console.print(f"The service: {escape(str(state['state']))}, for {since(state['since_s'])}")
    if not domain.config.researchers:
        todo = f"`fedpriv domain trust {escape(str(folder))} EMAIL=FINGERPRINT`"
        console.print(f"[yellow]Nobody may send requests:[/] no researcher is pinned. Next: {todo}.", soft_wrap=True)
    if state["older_than_config"]:
        console.print(
            f"[yellow]{CONFIG_FILE} was changed after the service began:[/] start it again for that to count."
        )
    for wait in state["waiting"]:
        who = "[bold]you[/]" if wait["who"] == "you" else escape(wait["who"])
        console.print(f"Waits for {who} to {escape(wait['what'])}, for {since(wait['since_s'])}")
    count = len(domain.requests.studies())
    entries = len(domain.ledger.entries())
    console.print(f"{count} request{'' if count == 1 else 's'}; {entries} ledger entr{'y' if entries == 1 else 'ies'}")
    if not state["running"]:
        console.print(f"Next: `fedpriv domain serve {escape(str(folder))}`.")


@app.command()
def requests(folder: Folder, as_json: AsJson = False) -> None:
    """List the code requests and what was decided."""
    book = Domain.open(folder).requests
    stored = book.all()
    for study in book.damaged():
        Console(stderr=True).print(
            f"[red]The frozen copy of {study[:12]} was changed on disk:[/] it is not run. Reject it.", soft_wrap=True
        )
    if as_json:
        typer.echo(json.dumps([s.decision.model_dump(mode="json") | {"researcher": s.researcher} for s in stored]))
        return
    if not stored:
        console.print("No requests yet.")
        return
    table = Table("request", "title", "researcher", "rounds", "protection", "decision")
    for s in stored:
        plan = s.request.plan
        cells = (s.request.study[:12], plan.title, s.researcher, str(plan.training.rounds), _levels_of(plan))
        table.add_row(*(escape(cell) for cell in cells), s.decision.decision)
    console.print(table)


@app.command()
def show(
    folder: Folder,
    study: StudyId,
    files: Annotated[bool, typer.Option("--files", help="Show every file, the stock recipe too.")] = False,
    since: Annotated[
        bool, typer.Option("--since", help="Compare with the last approved request of this researcher and title.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a request: what will run, what leaves, the checks, the findings, the code. Runs nothing."""
    from fedpriv.cli.review_view import print_review
    from fedpriv.domain.review import review_of

    domain = Domain.open(folder)
    review = review_of(domain, domain.requests.get(study))
    if as_json:
        typer.echo(review.model_dump_json(indent=1))
        return
    print_review(console, review, folder=str(folder), files=files, since=since)


@app.command("try")
def try_request(
    folder: Folder,
    study: StudyId,
    without_sandbox: Annotated[
        bool, typer.Option("--without-sandbox", help="Run even where bubblewrap is missing: the code sees all you see.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a request's code for two steps on made-up patients, in the sandbox, before you approve it.

    Exit code 1 if it failed, or the gatekeeper would not let out what it gave.
    """
    from fedpriv.cli.review_view import print_dry_run, trying
    from fedpriv.domain.dry_run import dry_run

    domain = Domain.open(folder)
    stored = domain.requests.get(study)
    with trying(Console(stderr=True)) as on_step:
        result = dry_run(domain, stored, on_step, without_sandbox=without_sandbox)
    if as_json:
        typer.echo(result.model_dump_json(indent=1))
    else:
        print_dry_run(console, result)
        console.print(f"Next: `fedpriv domain show {escape(str(folder))} {result.study[:12]}`.", soft_wrap=True)
    raise typer.Exit(int(result.outcome != "passed"))


app.command()(budget)
app.command()(backup)
app.command()(restore)
app.command("accept-loss")(accept_loss)
app.command()(schema)
app.command()(refresh)
app.command()(compare)

ledger = typer.Typer(no_args_is_help=True, help="The record of what was asked, decided, run and sent.")
app.add_typer(ledger, name="ledger")


@ledger.command("show")
def show_ledger(folder: Folder, as_json: AsJson = False) -> None:
    """Show every entry, one a line."""
    for entry in Domain.open(folder).ledger.entries():
        typer.echo(json.dumps(entry.__dict__) if as_json else as_text(entry))


@ledger.command("verify")
def verify_ledger(
    folder: Folder,
    holds: Annotated[
        str, typer.Option(metavar="DIGEST", help="An entry that must be there: finds an end that was cut off.")
    ] = "",
) -> None:
    """Check that no entry was changed, removed or moved, and name the first that was."""
    entries = Domain.open(folder).ledger.verified(holds=holds)
    if not entries:
        console.print(
            "[yellow]The ledger is empty:[/] if this domain was in use, it was removed. Compare with your backup."
        )
        return
    console.print(f"[green]The ledger is whole:[/] {len(entries)} entries, each chained and signed.")
    console.print(f"Keep the digest of the newest, to find an end that is cut off: {entries[-1].digest}")


@ledger.command("export")
def export_ledger(
    folder: Folder,
    out: Annotated[Path, typer.Option(metavar="FILE", help="A name that ends in .html or .csv.")],
) -> None:
    """Verify the ledger and write it as a page or a table for a privacy officer."""
    from fedpriv.domain.ledger_export import to_csv, to_html

    domain = Domain.open(folder)
    if out.suffix not in (".html", ".csv"):
        raise ConfigError(f"{out.name} is neither a page nor a table", todo="give a name that ends in .html or .csv")
    entries = domain.ledger.verified()
    whose = f"{domain.config.name} ({domain.config.email})"
    text = to_csv(entries) if out.suffix == ".csv" else to_html(entries, domain=whose, verified_s=time.time())
    write_atomic(out, text.encode())
    console.print(f"Wrote {len(entries)} entries, verified, to {escape(str(out))}. It is readable by you only.")


@app.command()
def keys(
    folder: Folder,
    words: Annotated[list[str] | None, typer.Argument(help="With --check: the twelve words.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say whose key the words are that the other read out.")
    ] = False,
    renew: Annotated[
        bool, typer.Option("--renew", help="Renew what messages to this domain are encrypted to; the words stay.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show this domain's key and those it relies on, as words to compare over the phone.

    `fedpriv domain keys FOLDER --check WORDS...` says whose key twelve words are.
    """
    domain = Domain.open(folder)
    if renew:
        generation = _renew_prekey(domain)
        if as_json:
            typer.echo(json.dumps({"generation": generation}))
        else:
            console.print(
                "What messages to this domain are encrypted to was renewed. The service and its researchers take it "
                "within a minute, or when they start next. Nobody has to compare words again."
            )
        return
    known = known_keys(domain)
    if words and not check:
        raise ConfigError("Words are given, but not what to do with them", todo="put --check in front of them")
    if check:
        matching = keys_of_words(known, " ".join(words or []))
        if as_json:
            typer.echo(json.dumps([asdict(key) | {"words": key.words} for key in matching]))
            return
        for key in matching:
            console.print(
                f"[green]These are the words of[/] [bold]{escape(key.email)}[/] ({escape('; '.join(key.where))})."
            )
        return
    if as_json:
        typer.echo(json.dumps([asdict(key) | {"words": key.words} for key in known]))
        return
    console.print(_keys_table(known))
    console.print("Let the other read the words from their own screen; say nothing first. All twelve must be the same.")
    if any(key.contradicted for key in known):
        console.print(
            "[red]Two different keys are named for one address:[/] compare both by phone before you approve anything."
        )


def _renew_prekey(domain: Domain) -> int:
    from fedpriv.transport.prekeys import RenewedKeys

    keys = RenewedKeys.open(domain.config.email, domain.folder.transport_keys_path)
    keys.renew()
    domain.ledger.append("key.renewed", generation=keys.generation)
    return keys.generation


def _keys_table(known: list[KnownKey]) -> Table:
    table = Table("whose key", "words", "fingerprint", show_lines=True)
    for key in known:
        words, digits = key.words.split(), key.fingerprint
        lines = "\n".join(" ".join(words[start : start + 3]) for start in range(0, 12, 3))
        groups = [digits[start : start + 4] for start in range(0, 64, 4)]
        hexes = "\n".join(" ".join(groups[start : start + 4]) for start in range(0, 16, 4))
        who = f"[{'red' if key.contradicted else 'bold'}]{escape(key.email)}[/]\n{escape(_where(key.where))}"
        table.add_row(who, lines, hexes)
    return table


def _where(places: tuple[str, ...]) -> str:
    return "\n".join(places[:3]) + (f"\nand {len(places) - 3} more studies" if len(places) > 3 else "")


def _levels_of(plan: Plan) -> str:
    """Return the level of most tensors and those of the exceptions."""
    others = [level for level in plan.protection.levels if level != plan.protection.level]
    return f"{plan.protection.level} (some {', '.join(others)})" if others else plan.protection.level
