"""``fedpriv domain backup`` and ``restore``: a domain in one encrypted file."""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fedpriv.cli.options import Folder
from fedpriv.domain import Domain
from fedpriv.errors import ConfigError

console = Console()

PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="FILE", help="Its first line, for scripts; by default you are asked."),
]
BackupFile = Annotated[Path, typer.Argument(help="The backup.", metavar="FILE")]


def backup(folder: Folder, file: BackupFile, passphrase_file: PassphraseFile = None) -> None:
    """Write keys, ledger, requests, decisions and studies to one encrypted file; never data. The service is stopped."""
    from fedpriv.domain.backup import back_up, stopped
    from fedpriv.protection.vault import require_passphrase

    domain = Domain.open(folder)
    with stopped(domain):
        pass  # nobody is asked for a passphrase in vain
    passphrase = _passphrase(passphrase_file, confirm=True)
    require_passphrase(passphrase)
    manifest = back_up(domain, file.expanduser().absolute(), passphrase)
    console.print(
        f"Wrote {escape(str(file))}, encrypted, and read it again: {manifest.ledger_entries} ledger entries, "
        f"{manifest.studies} studies, the keys of {escape(manifest.member)}.",
        soft_wrap=True,
    )
    console.print("Keep it on another machine, and the passphrase in another place than the file.")


def restore(
    file: BackupFile,
    folder: Folder,
    passphrase_file: PassphraseFile = None,
    check: Annotated[bool, typer.Option("--check", help="Only read the file to its end and say what it is.")] = False,
) -> None:
    """Make a domain's folder from a backup, on this or another machine. What is known here is never set back."""
    from fedpriv.domain import backup as backups
    from fedpriv.protection import fingerprint_words
    from fedpriv.protection.vault import require_vault

    if not file.is_file():
        raise ConfigError(f"There is no file {file}", todo="give the file that `fedpriv domain backup` wrote")
    require_vault(file)
    passphrase = _passphrase(passphrase_file, confirm=False)
    if check:
        manifest = backups.look_into(file, passphrase)
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest.made_s))
        console.print(
            f"The backup of {escape(manifest.member)} is whole: made {made} by fedpriv {escape(manifest.fedpriv)}, "
            f"{manifest.ledger_entries} ledger entries, {manifest.studies} studies.",
            soft_wrap=True,
        )
        return
    restored = backups.restore(file, folder, passphrase)
    root, manifest = escape(str(folder)), restored.manifest
    console.print(f"Restored {escape(manifest.member)} in {root}, with {manifest.ledger_entries} ledger entries.")
    console.print(f"  by phone:  {fingerprint_words(manifest.fingerprint)}")
    if restored.before is not None:
        console.print(
            f"The folder from before is {escape(str(restored.before))}; it holds keys and data.", soft_wrap=True
        )
    console.print(
        "Before you start it: the other machine must never serve again; and a study that went on after the backup was "
        "made must be revoked here (docs/keys.md).",
        soft_wrap=True,
    )
    console.print(f"Next: correct data > source in {root}/domain.yaml if need be, then `fedpriv domain serve {root}`.")


def accept_loss(folder: Folder) -> None:
    """Go on with a domain that was set back, where what came after is lost for good. Revokes every approval."""
    from fedpriv.domain.ledger_mark import MarkKeeper

    revoked = MarkKeeper(domain=Domain.open(folder)).accept_loss()
    console.print(f"The loss is in the ledger; {len(revoked)} approvals were revoked.")
    console.print(
        "What the lost rounds spent of the privacy budget is not known here: lower policy > epsilon by it; the "
        "researcher's history has the rounds. Next: `fedpriv domain serve`.",
        soft_wrap=True,
    )


def _passphrase(path: Path | None, *, confirm: bool) -> str:
    if path is None:
        return typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The passphrase cannot be read from {path}", todo="give another file") from error
    if mode & 0o077:
        what = f"{path} with the passphrase can be read by others (mode {mode:04o})"
        raise ConfigError(what, kept="It was not used", todo=f"chmod 600 {path}")
    return lines[0] if lines else ""
