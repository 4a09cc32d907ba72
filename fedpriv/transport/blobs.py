"""Blobs: sealed updates, aggregates and keys, one object each, encrypted to their recipient with syft's keys.

They do not travel as syft file events, which would keep three copies and grow from round to round.
"""

from __future__ import annotations

from pathlib import Path

from syft.sync.peers.peer_store import PeerStore

from fedpriv.errors import FedprivError, SignatureError, UntrustedError
from fedpriv.files import sha256_hex, write_atomic
from fedpriv.study.messages import BlobRef, Progress
from fedpriv.transport.connection import StoreConnection

_ENVELOPE_BYTES = 64 * 1024
_STATUS_BYTES = 64 * 1024


class BlobChannel:
    """Sends and receives blobs and progress of one party.

    Guarantee: the store sees ciphertext, names and sizes; a blob is used only if it decrypts, was signed by the pinned
    sender, and has the size and digest that the sender's signed message names.
    Assumption: syft's X3DH envelopes are sound, and the peer's transport key is pinned.
    """

    def __init__(self, connection: StoreConnection, peers: PeerStore) -> None:
        self._connection = connection
        self._peers = peers

    def send(self, recipient: str, name: str, data: bytes) -> BlobRef:
        """Encrypt ``data`` to ``recipient`` and put it on the store; sending it again replaces it."""
        reference = BlobRef(name=name, size_bytes=len(data), sha256=sha256_hex(data))
        self._connection.store.put(self._connection.key(recipient, "blobs", name), self._peers.encrypt(recipient, data))
        return reference

    def receive(self, sender: str, reference: BlobRef, target: Path) -> Path:
        """Fetch, decrypt and check a blob, and write it to ``target``; one that lies there already is kept.

        Raises
        ------
        TransportError
            If the store cannot be read.
        UntrustedError
            If it is missing, not what ``reference`` says, or not from ``sender``.
        """
        if target.exists() and sha256_hex(target.read_bytes()) == reference.sha256:
            return target
        key = self._connection.key_from(sender, "blobs", reference.name)
        envelope = self._connection.store.get(key, max_bytes=reference.size_bytes + _ENVELOPE_BYTES)
        if envelope is None:
            raise UntrustedError(
                f"{sender} announced {reference.name}, which is not on the store", todo="have it sent again"
            )
        data = self._decrypt(sender, envelope, what=reference.name)
        if len(data) != reference.size_bytes or sha256_hex(data) != reference.sha256:
            raise UntrustedError(f"{reference.name} from {sender} is not what its message says", kept="It was not used")
        write_atomic(target, data)
        return target

    def remove(self, recipient: str, name: str) -> None:
        """Delete a blob of ours that its recipient has taken."""
        self._connection.store.delete(self._connection.key(recipient, "blobs", name))

    def show_progress(self, recipient: str, progress: Progress) -> None:
        """Tell ``recipient`` where we are; only the newest is kept."""
        data = self._peers.encrypt(recipient, progress.model_dump_json().encode())
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
            raise SignatureError(f"{what} is not from {sender} or not for us", kept="It was not used") from error
