"""How files cross between datasites: syft's messages, our rules. What both sides share is here.

syft's own syncers trust what peers send in ways that a hospital cannot (docs/syft.md lists them). Ours keep syft's
message format and folders, and replace the handling:

* the owner takes new jobs only, only below the sender's own inbox folder, whole or not at all;
* what the owner publishes is compared with what was delivered, so a kill between two steps repeats, never loses;
* the watcher takes files only below the review folder that the sending domain keeps for it;
* on either side a peer's files take only so much of the disk;
* a message that breaks a rule is put in quarantine with its reason, and the next one is handled.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from syft.sync.peers.peer_store import PeerStore

from fedpriv.errors import SignatureError, UntrustedError
from fedpriv.transport.boxes import Message, sent_fact
from fedpriv.transport.connection import StoreConnection
from fedpriv.transport.messages import Address, pack_message, unpack_message

INBOX = PurePosixPath("app_data/job/inbox")
REVIEW = PurePosixPath("app_data/job/review")
CODE = "code"
"""The folder of a job with what was submitted."""

TIDY_SECONDS = 30.0
"""How often a box of ours is looked through: what was taken is deleted, and what the store lost is sent again."""
AGAIN_SECONDS = TIDY_SECONDS / 2
"""After which the same thing may be sent again, later and later: a peer may say for ever that it has not got it. The
first look that comes after that does it."""
MAX_HELD_BYTES = 4 * 2**30
"""Of all that one peer sent, each file counted in whole blocks: a peer cannot fill the disk."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}")
_DEEPEST, _LONGEST = 16, 1024
"""Parts of a path below its sender's folder, and characters of the whole: no file system here refuses such."""
_BLOCK_BYTES = 4096


def open_message(peers: PeerStore, message: Message) -> bytes:
    """Return syft's message out of its envelope: signed by its sender, for us, and in its place.

    Raises
    ------
    UntrustedError
        If it is none of that.
    """
    if message.envelope is None:
        raise UntrustedError(message.refusal)
    peer = message.address.sender
    try:
        peers.verify_message(peer, message.envelope)
        data = peers.decrypt(peer, message.envelope)
    except Exception as error:  # syft's native module raises plain exceptions of many kinds
        raise SignatureError(f"A message is not from {peer} or not for us", kept="It was not used") from error
    return unpack_message(data, message.address)


def send_message(
    connection: StoreConnection, peers: PeerStore, address: Address, content: bytes, brings: Sequence[str]
) -> dict[str, str]:
    """Put syft's message where it is to lie, in an envelope that holds for there only; return what to note of it."""
    connection.boxes.put_message(address, peers.encrypt(address.recipient, pack_message(content, address)))
    return {sent_fact(address.recipient, address.box, address.number): json.dumps(brings)}


def check_path(path: str, *, below: PurePosixPath) -> PurePosixPath:
    """Return a path that a message names, if it lies in the one folder that its sender may write.

    Raises
    ------
    UntrustedError
        If it does not, or has a part that is no plain name.
    """
    checked = PurePosixPath(path)
    if checked.parts[: len(below.parts)] != below.parts or len(checked.parts) <= len(below.parts):
        raise UntrustedError("A file lies outside the folder that its sender may write", kept="Nothing was written")
    if len(checked.parts) - len(below.parts) > _DEEPEST or len(path) > _LONGEST:
        raise UntrustedError("A file lies too deep, or its name is too long", kept="Nothing was written")
    if not all(_NAME.fullmatch(part) for part in checked.parts[len(below.parts) :]):
        raise UntrustedError("A file has an unusual name", kept="Nothing was written")
    return checked


def check_places(paths: Collection[PurePosixPath]) -> None:
    """Raise unless files can lie beside each other.

    Raises
    ------
    UntrustedError
        If one of them would be a folder of another.
    """
    if any(parent in paths for path in paths for parent in path.parents):
        raise UntrustedError("A message names the same thing as a file and as a folder", kept="Nothing was written")


class Clock:
    """Says of several peers when something is due again, the first time at once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last: dict[str, float] = {}

    def is_due(self, peer: str) -> bool:
        now = time.monotonic()
        if now - self._last.get(peer, -self._seconds) < self._seconds:
            return False
        self._last[peer] = now
        return True


class Room:
    """Counts what lies in the folders of peers, all of it once after a start, and refuses what would be too much."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}

    @contextlib.contextmanager
    def take(self, folder: Path, files: Mapping[Path, bytes], *, what: str) -> Iterator[None]:
        """Count files that the block writes below a peer's ``folder``; one that is there is replaced.

        Where it does not, on a full disk, all is counted again: else each attempt would count what never came.

        Raises
        ------
        UntrustedError
            If the peer's files would take more than ``MAX_HELD_BYTES``.
        """
        if folder not in self._held:
            self._held[folder] = sum(_on_disk(path) for path in folder.rglob("*") if path.is_file())
        after = self._held[folder] + sum(blocks(len(data)) - _on_disk(path) for path, data in files.items())
        if after > MAX_HELD_BYTES:
            raise UntrustedError(
                f"The {what} of this peer take as much as one peer may",
                kept="The new ones were not taken; all others stand",
                todo="move old ones away, and ask the peer why there are so many",
            )
        del self._held[folder]
        yield
        self._held[folder] = after


def _on_disk(path: Path) -> int:
    try:
        return blocks(path.stat().st_size)
    except FileNotFoundError:
        return 0


def blocks(size: int) -> int:
    """Return what a file of ``size`` bytes takes on a disk, in bytes."""
    return -(-max(size, 1) // _BLOCK_BYTES) * _BLOCK_BYTES


def remove_staging(syftbox_folder: Path) -> None:
    """Forget jobs whose writing a kill interrupted; they were not acknowledged and come again."""
    shutil.rmtree(staging_folder(syftbox_folder), ignore_errors=True)


def staging_folder(syftbox_folder: Path) -> Path:
    """Return where jobs are written before they are put in their place."""
    return syftbox_folder / ".staging"
