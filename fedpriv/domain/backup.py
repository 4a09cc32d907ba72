"""Backup and restore of a domain: one encrypted file with its keys, its memory and its promises, and never its data."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, cast

from pydantic import Field, ValidationError

from fedpriv import __version__
from fedpriv.domain.domain import Domain
from fedpriv.domain.folder import DomainFolder
from fedpriv.domain.ledger import Entry
from fedpriv.domain.owner import require_place
from fedpriv.errors import ConfigError, ExistsError, FedprivError, RefusedError, UntrustedError
from fedpriv.files import PRIVATE_FOLDER, canonical_json, folder_lock, private_folder, sync_folder
from fedpriv.protection.vault import VaultReader, new_vault
from fedpriv.study.names import Email, Sha256
from fedpriv.study.section import Section

_MANIFEST = "backup.json"
_MAX_MANIFEST_BYTES = 64 * 1024
_PIECE_BYTES = 2**20
_WHOLE = ("keys", "requests", "transport", "datasite")
_OF_A_STUDY = ("keys", "adapters", "updates", "rounds", "results", "slots", "input")
_OF_A_JOB = ("adapter_after.safetensors", "metrics.json")
_NO_PROMISES = ("domain.restored", "dataset.harmonized", "dataset.prepared")
_MODES = (0o400, 0o600, 0o644)


class BackupManifest(Section):
    """What a backup says of itself.

    ``ledger_entries``, ``ledger_sha256``  how long the ledger was, and the digest of its newest entry
    """

    fedpriv_backup: Literal[1] = 1
    fedpriv: str
    member: Email
    fingerprint: Sha256
    made_s: float
    ledger_entries: int = Field(ge=0)
    ledger_sha256: Sha256 | Literal[""]
    studies: int = Field(ge=0)


def backed_up(folder: DomainFolder) -> Iterator[Path]:
    """Yield the files that a backup needs, and no other: what is not listed here is not in it.

    *Guarantee*: no prepared example, no token of one, no log that a study's code wrote and no quarantined message is
    among them, and no link is followed.
    """
    yield folder.config_path
    mapping = folder.mapping_path(folder.load_config().data)
    if mapping is not None and mapping.resolve().is_relative_to(folder.root):
        yield mapping.resolve()
    yield folder.ledger_path
    state = folder.state
    yield from _plain(state / "pointer.json")
    for name in _WHOLE:
        yield from _below(state / name)
    for study in sorted((state / "studies").glob("*")):
        for path in sorted(study.glob("*.json")):
            yield from _plain(path)
        for name in _OF_A_STUDY:
            yield from _below(study / name)
        for job in sorted((study / "workspace").glob("*")):
            if not job.is_symlink():
                for name in _OF_A_JOB:
                    yield from _plain(job / name)


def _plain(path: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if stat.S_ISREG(path.lstat().st_mode):
            yield path


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if name != ".staging")
        for name in sorted(names):
            if not name.endswith(".tmp"):
                yield from _plain(Path(place) / name)


@contextlib.contextmanager
def stopped(domain: Domain) -> Iterator[None]:
    """Hold a domain's folder, which its service would write to.

    Raises
    ------
    LockError
        If the service runs.
    """
    todo = "stop the service first (it goes on where it was)"
    with folder_lock(domain.folder.lock_path, holder=f"The domain {domain.config.name}", todo=todo):
        yield


def back_up(domain: Domain, path: Path, passphrase: str) -> BackupManifest:
    """Write a domain's backup to ``path``, encrypted, and read it again to its end.

    Raises
    ------
    LockError
        If the domain's service runs: it would write while its files are read.
    ExistsError, ConfigError
        If there is a file already, or the passphrase is too short.
    UntrustedError
        If the ledger is not whole.
    """
    folder = domain.folder
    with stopped(domain):
        entries = domain.ledger.verified()
        manifest = BackupManifest(
            fedpriv=__version__,
            member=domain.config.email,
            fingerprint=domain.keys.fingerprint,
            made_s=round(time.time(), 3),
            ledger_entries=len(entries),
            ledger_sha256=entries[-1].digest if entries else "",
            studies=len(list((folder.state / "studies").glob("*"))),
        )
        with new_vault(path, passphrase) as vault, _tar_to(cast("BinaryIO", vault)) as tar:
            _add(tar, _MANIFEST, canonical_json(manifest.model_dump(mode="json")))
            for file in backed_up(folder):
                _add_file(tar, file.relative_to(folder.root).as_posix(), file)
    if look_into(path, passphrase) != manifest:
        raise UntrustedError(f"{path} does not hold what was written to it", todo="check that disk, and back up again")
    return manifest


def look_into(path: Path, passphrase: str) -> BackupManifest:
    """Return what a backup says of itself, after reading it to its end.

    Raises
    ------
    UntrustedError
        If it is none, the passphrase is wrong, or anything of it was changed or is missing.
    """
    with path.open("rb") as stream:
        vault = VaultReader(stream, passphrase)
        with _tar_from(vault) as tar:
            members = iter(tar)
            manifest = _manifest(tar, next(members, None))
            for member in members:
                _checked(member)
        vault.finish()
    return manifest


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A domain that was restored, and where its folder from before was put, if there was one."""

    domain: Domain
    manifest: BackupManifest
    before: Path | None


def restore(path: Path, root: Path, passphrase: str) -> Restored:
    """Make a domain's folder from a backup; nothing is changed before the whole file was read and found right.

    *Guarantee*: a domain that is there already is replaced only if its ledger has no entry that the backup lacks: what
    was charged to the privacy budget, sealed or confirmed is not forgotten. Its folder is kept beside the new one.
    *Assumption*: that the domain did not go on elsewhere after the backup is known to people only (docs/keys.md).

    Raises
    ------
    UntrustedError
        If the file is no backup, the passphrase is wrong, or anything was changed or is missing.
    RefusedError
        If the domain that is there knows more than the backup.
    ExistsError
        If another domain, or anything else, is there.
    ConfigError
        If root would restore it in another user's folder.
    LockError
        If its service runs.
    """
    root = root.resolve()
    require_place(root)
    staging = root.with_name(f".{root.name}.restoring")
    shutil.rmtree(staging, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    staging.mkdir(mode=PRIVATE_FOLDER)
    try:
        manifest = _unpack(path, staging, passphrase)
        domain, entries = _whole(staging, manifest)
        before = _replace(staging, root, domain, entries)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sync_folder(root.parent)
    restored = Domain.open(root)
    restored.ledger.append("domain.restored", made_s=manifest.made_s, entries=manifest.ledger_entries)
    return Restored(domain=restored, manifest=manifest, before=before)


def _unpack(path: Path, staging: Path, passphrase: str) -> BackupManifest:
    with path.open("rb") as stream:
        vault = VaultReader(stream, passphrase)
        with _tar_from(vault) as tar:
            members = iter(tar)
            manifest = _manifest(tar, next(members, None))
            for member in members:
                target = staging / _checked(member)
                private_folder(target.parent)
                source = tar.extractfile(member)
                mode = member.mode & 0o777
                with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as written:
                    shutil.copyfileobj(cast("BinaryIO", source), written, _PIECE_BYTES)
                    written.flush()
                    os.fsync(written.fileno())
        vault.finish()
    return manifest


def _whole(staging: Path, manifest: BackupManifest) -> tuple[Domain, list[Entry]]:
    """Open what was unpacked, and check that it is the domain and the ledger that the manifest names."""
    domain = Domain.open(staging)
    entries = domain.ledger.verified()
    newest = entries[-1].digest if entries else ""
    found = (domain.keys.fingerprint, domain.config.email, len(entries), newest)
    if found != (manifest.fingerprint, manifest.member, manifest.ledger_entries, manifest.ledger_sha256):
        raise UntrustedError("The backup does not hold the domain that it names", kept="Nothing was restored")
    return domain, entries


def _replace(staging: Path, root: Path, domain: Domain, entries: list[Entry]) -> Path | None:
    """Put the folder in its place; return where the one from before went."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        staging.replace(root)
        return None
    try:
        there = Domain.open(root)
    except ConfigError as error:
        raise ExistsError(
            f"{root} is there, and is no domain that can be opened ({error.what})",
            kept="Nothing was restored",
            todo="move it away yourself, or give another folder",
        ) from error
    if there.keys.fingerprint != domain.keys.fingerprint:
        raise ExistsError(f"{root} is another domain", kept="Nothing was restored", todo="give another folder")
    with folder_lock(there.folder.lock_path, holder=f"The domain {there.config.name}", todo="stop its service first"):
        _require_no_more(there, entries)
        before = root.with_name(f"{root.name}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        root.rename(before)
        try:
            staging.rename(root)
        except OSError:
            before.rename(root)
            raise
        (before / there.folder.lock_path.relative_to(root)).unlink(missing_ok=True)
    return before


def _require_no_more(there: Domain, entries: list[Entry]) -> None:
    """Refuse to forget: every entry of the ledger that is there must be in the backup's.

    But for what an older backup that was restored here has added by itself: else the newest could not follow it.
    """
    try:
        known = there.ledger.verified()
    except FedprivError as error:
        raise RefusedError(
            f"The ledger that is there is not whole ({error.what}), so that nobody can say what would be forgotten",
            kept="Nothing was restored",
            todo="keep it as it is, restore into another folder, and compare both with your privacy officer",
        ) from error
    kept = [entry.digest for entry in entries[: len(known)]]
    if [entry.digest for entry in known] == kept:
        return
    same = next((n for n, (a, b) in enumerate(zip(known, entries, strict=False)) if a.digest != b.digest), None)
    more = known[len(entries) if same is None else same :]
    if all(entry.kind in _NO_PROMISES for entry in more):
        return
    charged = sum(entry.kind == "epsilon.charged" for entry in more)
    raise RefusedError(
        f"The ledger that is there has {len(known)} entries, and the backup lacks the last {len(more)} of them, with "
        f"{charged} charges to the privacy budget: restoring it would forget what was spent, sealed and confirmed",
        kept="Nothing was restored",
        todo="start the service on what is there, or restore a newer backup",
    )


# -- the archive inside -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _tar_to(stream: BinaryIO) -> Iterator[tarfile.TarFile]:
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE_BYTES) as tar:
        yield tar


@contextlib.contextmanager
def _tar_from(vault: VaultReader) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(fileobj=cast("BinaryIO", vault), mode="r|", bufsize=_PIECE_BYTES) as tar:
            yield tar
    except tarfile.TarError as error:
        raise UntrustedError("The backup holds no archive of ours", kept="Nothing was restored") from error


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    tar.addfile(info, io.BytesIO(data))


def _add_file(tar: tarfile.TarFile, name: str, path: Path) -> None:
    """Add a plain file with its mode, as long as it is at this moment; a link that took its place is an error."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        facts = os.fstat(descriptor)
        info = tarfile.TarInfo(name)
        info.size, info.mode = facts.st_size, facts.st_mode & 0o777
        if info.mode not in _MODES:
            info.mode = 0o600
        tar.addfile(info, stream)


def _checked(member: tarfile.TarInfo) -> PurePosixPath:
    """Return where a file of the archive goes, below the domain's folder."""
    place = PurePosixPath(member.name)
    inside = place.parts and not place.is_absolute() and ".." not in place.parts
    if not inside or not member.isreg() or (member.mode & 0o777) not in _MODES:
        raise UntrustedError("The backup holds a file that belongs to no domain", kept="Nothing was restored")
    return place


def _manifest(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> BackupManifest:
    if member is None or member.name != _MANIFEST or not member.isreg() or member.size > _MAX_MANIFEST_BYTES:
        raise UntrustedError("The backup does not say what it is", kept="Nothing was restored")
    try:
        return BackupManifest.model_validate_json(cast("BinaryIO", tar.extractfile(member)).read())
    except ValidationError as error:
        raise UntrustedError(
            "The backup is of another version",
            kept="Nothing was restored",
            todo="restore it with the fedpriv that made it",
        ) from error
