"""Blobs: sealed updates, aggregates and keys, encrypted to their recipient with syft's keys.

They do not travel as syft file events, which would keep three copies and grow from round to round. A small blob is one
object, ``blobs/<name>``; a large one an index of that name, and its parts below ``parts/<name>.<digest>/``.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

from syft.sync.peers.peer_store import PeerStore

from fedpriv.errors import (
    FedprivError,
    MissingBlobError,
    SignatureError,
    TransportError,
    UnreachableError,
    UntrustedError,
)
from fedpriv.files import file_sha256, sha256_hex, write_atomic
from fedpriv.study.messages import MAX_BLOB_BYTES, BlobRef, Progress
from fedpriv.transport.backing_off import BackingOff
from fedpriv.transport.changed import CHANGED_FILE, MOST_NAMED, blob_of, changed_word, read_changed
from fedpriv.transport.connection import StoreConnection
from fedpriv.transport.pacing import Pace
from fedpriv.transport.parts import MAX_INDEX_BYTES, PART_BYTES, PartialFile, PartsIndex, Source
from fedpriv.transport.spool import Spool
from fedpriv.transport.under_way import Moved, move_all

_ENVELOPE_BYTES = 64 * 1024
_STATUS_BYTES = 64 * 1024
_STATUS_STEP = 1024
_LOOKED_SECONDS = 30.0
"""After which an object that its recipient finds changed is looked at again, later and later. It may not be true, and
to look, and to put it back, costs the line that others use."""
T = TypeVar("T")


class BlobChannel:
    """Sends and receives blobs and progress of one party.

    Guarantee: the store sees ciphertext, names and sizes; a blob is used only if it decrypts, was signed by the pinned
    sender, and has the size and digest that the sender's signed message names. What arrived of a large blob is kept: a
    repetition moves the parts that are missing. What the store lost or changed, the sender puts back while it runs. At
    most a few parts are in memory.
    Assumption: syft's X3DH envelopes are sound, the peer's transport key is pinned, and a file is not changed while it
    is sent.

    Parameters
    ----------
    connection, peers : StoreConnection, PeerStore
        The store, and whose keys are used.
    spool : Spool or None
        Where what was sent is kept until it is removed; None keeps nothing, and what a store loses is lost.
    upload_limit_mbit : float or None
        Most that is sent of blobs, in megabits a second on average; None is no limit.
    part_bytes : int
        Size of a part, the same on both sides; another than the protocol's is for tests.
    """

    def __init__(
        self,
        connection: StoreConnection,
        peers: PeerStore,
        *,
        spool: Spool | None = None,
        upload_limit_mbit: float | None = None,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._connection = connection
        self._peers = peers
        self._spool = spool
        self._pace = Pace(upload_limit_mbit)
        self._part_bytes = part_bytes
        self._sent_in_parts: dict[str, set[str]] = {}
        self._digests: dict[tuple[str, str], str] = {}
        self._on_the_way: Counter[tuple[str, str]] = Counter()
        self._changed: dict[str, dict[str, str]] = {}
        self._looking = BackingOff(_LOOKED_SECONDS)
        self._lock = threading.Lock()
        self._saying = threading.Lock()

    # -- sending -------------------------------------------------------------------------------------------------

    def send(self, recipient: str, name: str, data: bytes | Path, *, on_moved: Moved | None = None) -> BlobRef:
        """Encrypt a blob to ``recipient`` and put it on the store; sending it again replaces it.

        Parts of a large one that lie there already are not sent again.

        Parameters
        ----------
        data : bytes or Path
            The blob, or a file with it, of which a few parts at a time are read.
        on_moved : Callable[[int, int], None], optional
            Called after each part of a large blob.

        Raises
        ------
        TransportError
            If the store does not take it; parts that it took stay there.
        UntrustedError
            If the file changes meanwhile.
        """
        with self._at_work(recipient, name):
            if self._spool is not None:
                self._spool.keep(recipient, name, data)
            source = Source.of(data, part_bytes=self._part_bytes)
            reference = BlobRef(name=name, size_bytes=source.size_bytes, sha256=source.sha256)
            self._digests[recipient, name] = source.sha256
            if source.size_bytes > self._part_bytes:
                content = self._send_parts(recipient, reference, source, on_moved or _nobody)
            else:
                content = source.part(0)
            self._put(self._connection.key(recipient, "blobs", name), recipient, content)
            return reference

    @contextlib.contextmanager
    def _at_work(self, recipient: str, name: str) -> Iterator[None]:
        """Note that a blob is on its way: what of it is not on the store yet is not lost."""
        with self._lock:
            self._on_the_way[recipient, name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._on_the_way[recipient, name] -= 1

    def _send_parts(self, recipient: str, reference: BlobRef, source: Source, on_moved: Moved) -> bytes:
        """Put what is missing of the parts, and return the index of them all."""
        index = PartsIndex(
            size_bytes=source.size_bytes, sha256=source.sha256, part_bytes=source.part_bytes, digests=source.digests
        )
        folder = self._connection.key(recipient, "parts", _parts_name(reference))
        self._forget_parts(recipient, reference.name, but=_parts_name(reference))
        held = {entry.name: entry.size_bytes for entry in self._connection.store.entries(folder)}
        # A put is whole or not there, and nobody else writes here: a name of a fitting size is that part.
        missing = [n for n in range(index.count) if held.get(_part_name(n), 0) <= index.size_of(n)]

        def move(number: int) -> None:
            self._put(f"{folder}/{_part_name(number)}", recipient, source.part(number))

        move_all(missing, move, index, on_moved)
        return index.model_dump_json().encode()

    def _put(self, key: str, recipient: str, content: bytes) -> None:
        envelope = self._peers.encrypt(recipient, content)
        self._pace.wait(len(envelope))
        self._connection.store.put(key, envelope)

    def remove(self, recipient: str, name: str) -> None:
        """Delete a blob of ours that its recipient has taken, with its parts.

        What a kill or the store leaves of it is deleted when what was lost is sent, or when this is called again.
        """
        if self._spool is not None:
            self._spool.forget(recipient, name)  # first: what is removed is not lost
        self._digests.pop((recipient, name), None)
        self._connection.store.delete(self._connection.key(recipient, "blobs", name))
        self._forget_parts(recipient, name)
        self._looking.forget(recipient, lambda place: blob_of(place) == name)
        if self._spool is not None:
            self._spool.removed(recipient, name)

    def _remove_rest(self, recipient: str, spool: Spool) -> TransportError | UntrustedError | None:
        """Delete what is still to be removed; return what the store refused, which keeps no other blob waiting."""
        refused: TransportError | UntrustedError | None = None
        for name in spool.removing(recipient):
            if self._on_the_way[recipient, name]:
                continue
            try:
                self.remove(recipient, name)
            except UnreachableError:
                raise
            except (TransportError, UntrustedError) as error:
                refused = refused or error
        return refused

    def send_lost(self, recipient: str) -> list[str]:
        """Send again what the store lost or changed of our blobs to ``recipient``; return their names."""
        if self._spool is None:
            return []
        refused = self._remove_rest(recipient, self._spool)
        kept, lost, lying = self._spool.names(recipient), list[str](), set[str]()
        if kept:
            self._take_away_changed(recipient, kept)
            lying = {entry.name for entry in self._connection.store.entries(self._connection.key(recipient, "blobs"))}
        for name in kept:
            path = self._spool.path(recipient, name)
            with contextlib.suppress(FileNotFoundError):  # it was taken in the meantime
                if self._on_the_way[recipient, name] or (name in lying and self._has_parts(recipient, name, path)):
                    continue
                try:
                    with contextlib.suppress(FileNotFoundError):
                        self.send(recipient, name, path)
                except UnreachableError:
                    raise
                except (TransportError, UntrustedError) as error:  # it keeps no other blob waiting
                    refused = refused or error
                    continue
                if not path.exists():  # it was taken while it was sent
                    self.remove(recipient, name)
                    continue
                lost.append(name)
        if refused is not None:
            raise refused
        return lost

    def _take_away_changed(self, recipient: str, kept: Collection[str]) -> None:
        """Delete what ``recipient`` found changed, where it lies there as it was found: it counts as lost then."""
        store = self._connection.store
        for place, digest in read_changed(store, self._connection.key_from(recipient, CHANGED_FILE)).items():
            if blob_of(place) not in kept or self._on_the_way[recipient, blob_of(place)]:
                continue
            if not self._looking.is_due(recipient, place):
                continue
            key = self._connection.key(recipient, *place.split("/"))
            try:
                lying = store.get(key, max_bytes=self._most_bytes(recipient, place))
                is_changed = lying is not None and sha256_hex(lying) == digest
            except UntrustedError:  # too large, or no file
                is_changed = True
            if is_changed:
                with contextlib.suppress(TransportError):  # what cannot be deleted keeps no other blob waiting
                    store.delete(key)

    def _most_bytes(self, recipient: str, place: str) -> int:
        """Return what the recipient takes of an object at the most: what is larger it did not read."""
        kind, *rest = place.split("/")
        try:
            size = self._spool.path(recipient, blob_of(place)).stat().st_size if self._spool is not None else 0
        except FileNotFoundError:  # it was taken in the meantime
            size = 0
        if kind == "parts":
            size = min(self._part_bytes, max(size - int(rest[-1]) * self._part_bytes, 0))
        elif size > self._part_bytes:
            size = MAX_INDEX_BYTES
        return size + _ENVELOPE_BYTES

    def _has_parts(self, recipient: str, name: str, path: Path) -> bool:
        """Say whether the parts of a blob lie on the store, by their names; a small one has none.

        Their number does not tell: whoever else writes there may have put other things beside them.
        """
        size_bytes, digest = path.stat().st_size, self._digests.get((recipient, name))
        if size_bytes <= self._part_bytes:
            return True
        if digest is None:  # once, after a start
            digest = self._digests[recipient, name] = file_sha256(path)
        reference = BlobRef(name=name, size_bytes=size_bytes, sha256=digest)
        folder = self._connection.key(recipient, "parts", _parts_name(reference))
        lying = {entry.name for entry in self._connection.store.entries(folder)}
        return all(_part_name(number) in lying for number in range(-(-size_bytes // self._part_bytes)))

    def _versions(self, recipient: str, name: str) -> set[str]:
        """Return the folders of a blob's parts; the store is asked once, later on the names are known."""
        if recipient not in self._sent_in_parts:
            folder = self._connection.key(recipient, "parts")
            self._sent_in_parts[recipient] = set(self._connection.store.names(folder))
        return {version for version in self._sent_in_parts[recipient] if version.rpartition(".")[0] == name}

    def _forget_parts(self, recipient: str, name: str, *, but: str = "") -> None:
        """Delete the parts of a blob, but for one version of it; asks the store only where there were some."""
        store, folder = self._connection.store, self._connection.key(recipient, "parts")
        with self._lock:
            old = self._versions(recipient, name) - {but}
            if but:
                self._sent_in_parts[recipient].add(but)
        for version in old:
            for entry in store.entries(f"{folder}/{version}"):
                store.delete(f"{folder}/{version}/{entry.name}")
            store.remove_folder(f"{folder}/{version}")
            with self._lock:  # not before: where the store refuses, it is known the next time
                self._sent_in_parts[recipient].discard(version)

    # -- receiving -----------------------------------------------------------------------------------------------

    def receive(
        self,
        sender: str,
        reference: BlobRef,
        target: Path,
        *,
        max_bytes: int = MAX_BLOB_BYTES,
        on_moved: Moved | None = None,
    ) -> Path:
        """Fetch, decrypt and check a blob, and write it to ``target``; one that lies there already is kept.

        Of a large one, what an earlier attempt fetched lies beside ``target`` and is used.

        Parameters
        ----------
        max_bytes : int
            The most that it can rightly have; none of a larger one is fetched.

        Raises
        ------
        TransportError
            If the store cannot be read; what was fetched is kept.
        MissingBlobError
            If it is missing, or lies there otherwise than ``sender`` left it, which is told to ``sender``.
        UntrustedError
            If it is larger than it can be, or its parts do not make it.
        """
        if reference.size_bytes > max_bytes:
            raise UntrustedError(
                f"{sender} announced {reference.name} with {reference.size_bytes} bytes, and it can have {max_bytes} "
                "at the most",
                kept="None of it was fetched",
                todo="install the same version of fedpriv on both sides, or ask the sender",
            )
        if target.exists() and file_sha256(target) == reference.sha256:
            return target
        if reference.size_bytes > self._part_bytes:
            self._receive_parts(sender, reference, target, on_moved or _nobody)
        else:
            self._receive_whole(sender, reference, target)
        self._is_unchanged(sender, reference.name)
        return target

    def _receive_whole(self, sender: str, reference: BlobRef, target: Path) -> None:
        what = reference.name

        def read(data: bytes) -> bytes:
            if len(data) != reference.size_bytes or sha256_hex(data) != reference.sha256:
                raise UntrustedError(f"{what} from {sender} is not what its message says", kept="It was not used")
            return data

        write_atomic(target, self._get(sender, f"blobs/{what}", reference.size_bytes, read, what=what))

    def _receive_parts(self, sender: str, reference: BlobRef, target: Path, on_moved: Moved) -> None:
        name, parts_name = reference.name, _parts_name(reference)

        def read_index(data: bytes) -> PartsIndex:
            return PartsIndex.read(data, reference, part_bytes=self._part_bytes, sender=sender)

        index = self._get(sender, f"blobs/{name}", MAX_INDEX_BYTES, read_index, what=f"the index of {name}")
        partial = PartialFile(target, index)

        def move(number: int) -> None:
            what = f"part {number + 1} of {index.count} of {name}"

            def read(part: bytes) -> bytes:
                if sha256_hex(part) != index.digests[number]:
                    said = f"{_up(what)} from {sender} is not what its index says"
                    raise UntrustedError(said, kept="It was not used")
                return part

            place = f"parts/{parts_name}/{_part_name(number)}"
            partial.write(number, self._get(sender, place, index.size_of(number), read, what=what))

        try:
            move_all(partial.missing(), move, index, on_moved, on_part=partial.hold)
            partial.finish()
        finally:
            partial.close()

    def _get(self, sender: str, place: str, size_bytes: int, read: Callable[[bytes], T], *, what: str) -> T:
        """Return what ``read`` makes of an object; one that it refuses is not as ``sender`` left it, who is told."""
        envelope: bytes | None = None
        try:
            key = self._connection.key_from(sender, *place.split("/"))
            envelope = self._connection.store.get(key, max_bytes=size_bytes + _ENVELOPE_BYTES)
            data = None if envelope is None else self._decrypt(sender, envelope, what=what)
            if data is not None:
                return read(data)
        except UntrustedError as error:
            self._say_changed(sender, place, "" if envelope is None else sha256_hex(envelope))
            todo = error.todo or "wait a minute: its sender puts back what was changed on the store"
            raise MissingBlobError(error.what, kept=error.kept, todo=todo) from error
        raise MissingBlobError(
            f"{sender} announced {what}, which is not on the store",
            todo="wait a minute: its sender sends it again if the store lost it",
        )

    def _say_changed(self, sender: str, place: str, digest: str) -> None:
        """Tell ``sender`` what lies in the place of one of its objects."""
        with self._saying:  # until it is put: a word with less in it, of another thread, could take its place
            named = self._changed.setdefault(sender, {})
            named.pop(place, None)
            named[place] = digest
            for oldest in list(named)[:-MOST_NAMED]:
                del named[oldest]
            self._say(sender, named)

    def _is_unchanged(self, sender: str, name: str) -> None:
        """Take back what was said of a blob that arrived: its sender looks at all that is named."""
        with self._saying:
            named = self._changed.get(sender, {})
            mended = [place for place in named if blob_of(place) == name]
            for place in mended:
                del named[place]
            if mended:
                self._say(sender, named)

    def _say(self, sender: str, named: dict[str, str]) -> None:
        self._connection.store.put(self._connection.key(sender, CHANGED_FILE), changed_word(named))

    # -- progress ------------------------------------------------------------------------------------------------

    def show_progress(self, recipient: str, progress: Progress) -> None:
        """Tell ``recipient`` where we are; only the newest is kept."""
        said = progress.model_dump_json().encode()
        data = self._peers.encrypt(recipient, said.ljust(_STATUS_STEP))  # its length tells nothing
        self._connection.store.put(self._connection.key(recipient, "status"), data)

    def progress_of(self, sender: str) -> Progress | None:
        """Return where ``sender`` is, or None; progress is never worth an error."""
        try:
            envelope = self._connection.store.get(self._connection.key_from(sender, "status"), max_bytes=_STATUS_BYTES)
            return (envelope and Progress.model_validate_json(self._decrypt(sender, envelope, what="status"))) or None
        except (FedprivError, ValueError):
            return None

    def _decrypt(self, sender: str, envelope: bytes, *, what: str) -> bytes:
        try:
            self._peers.verify_message(sender, envelope)
            return self._peers.decrypt(sender, envelope)
        except Exception as error:  # syft's native module raises plain exceptions of many kinds
            raise SignatureError(f"{_up(what)} is not from {sender} or not for us", kept="It was not used") from error


def _up(what: str) -> str:
    """Return words as a sentence begins with them; the name of a blob stays as it is."""
    return what[0].upper() + what[1:] if " " in what else what


def _parts_name(reference: BlobRef) -> str:
    """Return the folder of a blob's parts: another content has another one, so that nobody mixes them."""
    return f"{reference.name}.{reference.sha256[:16]}"


def _part_name(number: int) -> str:
    return f"{number:05d}"


def _nobody(done_bytes: int, total_bytes: int) -> None:
    """Nobody wants to know."""
