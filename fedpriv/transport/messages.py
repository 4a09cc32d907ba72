"""What an envelope holds: syft's message, and to whom, in which box and under which number it was sent.

A store can show an envelope again, under another number, in another box, or an old one in place of a new one. syft's
envelopes bind the parties only; the address inside binds the rest, so that each message counts once, in its place.

*Guarantee*: a message is taken in the one place that its sender gave it. *Assumption*: the envelope around it is signed
by the sender and opened by the recipient alone, and no sender uses a number twice.

The bytes are syft's own: a gzipped tar with one file, to which ours is added, and zeros at the end, so that the store
sees lengths in steps of ``PAD_BYTES``. syft's own reader takes its file and passes over both.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from dataclasses import asdict, dataclass
from typing import Literal

from fedpriv.errors import UntrustedError

MAX_MESSAGE_BYTES = 8 * 2**20
"""Of a message as it lies on the store."""

MAX_UNPACKED_BYTES = 4 * MAX_MESSAGE_BYTES
PAD_BYTES = 4096
_CONTENT, _ADDRESS = "proposed_file_changes.json", "fedpriv.json"  # syft names all messages so
_MOST_FILES = 4

Box = Literal["inbox", "outbox"]


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a message lies.

    Attributes
    ----------
    sender, recipient : str
        Addresses of the parties.
    box : {"inbox", "outbox"}
        The recipient's inbox, for what is proposed, or the sender's outbox, for results.
    number : int
        The sender's own count in this box, from 1.
    """

    sender: str
    recipient: str
    box: Box
    number: int


def pack_message(content: bytes, address: Address) -> bytes:
    """Return the bytes of a message, a multiple of ``PAD_BYTES`` long, to be put into an envelope."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in ((_CONTENT, content), (_ADDRESS, json.dumps(asdict(address)).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return padded(gzip.compress(stream.getvalue(), mtime=0))


def padded(data: bytes) -> bytes:
    """Return ``data`` with zeros behind it, up to the next multiple of ``PAD_BYTES``."""
    return data + bytes(-len(data) % PAD_BYTES)


def unpack_message(data: bytes, address: Address) -> bytes:
    """Return syft's message out of the bytes that lay at ``address``; never more than ``MAX_UNPACKED_BYTES``.

    Raises
    ------
    UntrustedError
        If it is malformed, unpacks to more, or was sent to another place than it lies in.
    """
    inflater = zlib.decompressobj(wbits=31)
    try:
        unpacked = inflater.decompress(data, MAX_UNPACKED_BYTES)
        if inflater.unconsumed_tail or not inflater.eof:
            raise UntrustedError("A message is truncated or unpacks to more than is allowed", kept="It was not used")
        files = _files(unpacked)
        said, content = files[_ADDRESS], files[_CONTENT]
    except (zlib.error, tarfile.TarError, KeyError, ValueError) as error:
        raise UntrustedError(f"A message is malformed ({error})", kept="It was not used") from error
    if said != json.dumps(asdict(address)).encode():
        raise UntrustedError(
            "A message was sent under another number, or to another box, than it lies in: the store, or whoever can "
            "write there, shows an old one again or mixes them up",
            kept="It was not used",
            todo="if it happens again, ask who runs the store",
        )
    return content


def _files(archive: bytes) -> dict[str, bytes]:
    """Return the files of a tar, header by header: tarfile's own reader goes round for ever on a negative size.

    Raises
    ------
    tarfile.TarError
        If a header cannot be read.
    UntrustedError
        If it holds anything but a few whole files.
    """
    found: dict[str, bytes] = {}
    start = 0
    for _ in range(_MOST_FILES):
        header = archive[start : start + tarfile.BLOCKSIZE]
        if not any(header):
            return found
        member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        start += tarfile.BLOCKSIZE
        if not member.isreg() or not 0 <= member.size <= len(archive) - start:
            break
        found[member.name] = archive[start : start + member.size]
        start += -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    raise UntrustedError("A message holds no file where one must be", kept="It was not used")
