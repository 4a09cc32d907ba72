"""A file that one passphrase opens: written and read as a stream, so that its size does not matter.

    file   = "fedpriv-vault 1\\n" + J(head) + "\\n" + chunk + chunk + ...
    head   = {"kdf": "scrypt", "n", "r", "p", "salt", "cipher": "chacha20-poly1305", "prefix", "check"}
    chunk  = ChaCha20-Poly1305(key, nonce, at most 2^20 bytes, associated data = all before the first chunk)
    nonce  = prefix (7 bytes) + number of the chunk (4, big-endian) + 1 for the last chunk, else 0

``J`` is canonical JSON, bytes in it are URL-safe base64; ``key`` (32) and what ``check`` is the SHA-256 of (32) are
scrypt (RFC 7914) of the passphrase in Unicode's NFC. Chunks that say which is the last one are STREAM of Hoang,
Reyhanitabar, Rogaway and Vizar (2015): none can be left out, moved or cut off.
"""

from __future__ import annotations

import base64
import os
import struct
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import Field, ValidationError

from fedpriv.errors import ConfigError, ExistsError, UntrustedError
from fedpriv.files import PRIVATE_FILE, canonical_json, sha256_hex, sync_folder
from fedpriv.study.section import Section

_MAGIC = b"fedpriv-vault 1\n"
_CHUNK_BYTES, _TAG_BYTES = 2**20, 16
_MAX_HEAD_BYTES = 1024
_N = 2**17
"""scrypt's cost: 128 MiB and about half a second for each try."""

LEAST_CHARACTERS = 12
_KEPT = "Nothing was restored"


class _Head(Section):
    kdf: Literal["scrypt"] = "scrypt"
    n: int = Field(default=_N, ge=2**14, le=2**20)
    r: Literal[8] = 8
    p: Literal[1] = 1
    salt: str = Field(pattern=r"^[A-Za-z0-9_-]{22}==$")
    cipher: Literal["chacha20-poly1305"] = "chacha20-poly1305"
    prefix: str = Field(pattern=r"^[A-Za-z0-9_-]{10}==$")
    check: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")


def require_passphrase(passphrase: str) -> None:
    """Refuse a passphrase that is guessed too easily.

    Raises
    ------
    ConfigError
        If it has fewer than twelve characters.
    """
    if len(passphrase) < LEAST_CHARACTERS:
        raise ConfigError(
            f"The passphrase has fewer than {LEAST_CHARACTERS} characters",
            kept="Nothing was written",
            todo="take five words or more that nobody would guess",
        )


def require_vault(path: Path) -> None:
    """Look whether a file begins as a vault does, before anybody is asked for a passphrase.

    Raises
    ------
    UntrustedError
        If it does not.
    """
    with path.open("rb") as stream:
        _read_magic(stream)


def _read_magic(stream: BinaryIO) -> None:
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise UntrustedError(
            "The file is no backup of fedpriv, or of another version", kept=_KEPT, todo="give the right file"
        )


class VaultWriter:
    """Encrypts what is written to it; made by :func:`new_vault`."""

    def __init__(self, stream: BinaryIO, passphrase: str) -> None:
        head = _Head(salt=_b64(os.urandom(16)), prefix=_b64(os.urandom(7)))
        key, check = _derive(passphrase, head)
        head = head.model_copy(update={"check": check})
        self._stream, self._chunks = stream, _Chunks(key, head)
        self._buffer = bytearray()
        stream.write(self._chunks.start)

    def write(self, data: bytes) -> int:
        """Encrypt ``data`` behind what was written before; return its size in bytes."""
        self._buffer += data
        while len(self._buffer) > _CHUNK_BYTES:  # one chunk is always left, for the end
            self._stream.write(self._chunks.encrypt(bytes(self._buffer[:_CHUNK_BYTES]), last=False))
            del self._buffer[:_CHUNK_BYTES]
        return len(data)

    def finish(self) -> None:
        """Write the last chunk."""
        self._stream.write(self._chunks.encrypt(bytes(self._buffer), last=True))


@contextmanager
def new_vault(path: Path, passphrase: str) -> Iterator[VaultWriter]:
    """Make a vault at ``path``, readable by its owner only (mode 0600), once the block ends without an error.

    *Guarantee*: whoever has the file and not the passphrase learns its size, and nothing else.
    *Assumption*: the passphrase is not guessed in as many tries as an attacker can pay for, at 128 MiB of memory each.

    Raises
    ------
    ConfigError
        If the passphrase is too short.
    ExistsError
        If there is a file already.
    """
    require_passphrase(passphrase)
    if path.exists():
        raise ExistsError(f"{path} is there already", kept="It was left as it is", todo="give another name")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            writer = VaultWriter(stream, passphrase)
            yield writer
            writer.finish()
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


class VaultReader:
    """Decrypts a vault while it is read. What it gives is authentic; that it is all of it, :meth:`finish` says.

    Raises
    ------
    UntrustedError
        If it is no vault, the passphrase is wrong, or a byte was changed, moved or cut off.
    """

    def __init__(self, stream: BinaryIO, passphrase: str) -> None:
        _read_magic(stream)
        line = stream.readline(_MAX_HEAD_BYTES)
        try:
            head = _Head.model_validate_json(line)
        except ValidationError as error:
            raise UntrustedError("The backup's head is damaged", kept=_KEPT, todo="take another copy of it") from error
        key, check = _derive(passphrase, head)
        if check != head.check:
            raise UntrustedError(
                "The passphrase is wrong, or the backup's head was changed", kept=_KEPT, todo="type it once more"
            )
        self._stream, self._chunks = stream, _Chunks(key, head)
        if self._chunks.start != _MAGIC + line:
            raise UntrustedError("The backup's head is not as it was written", kept=_KEPT, todo="take another copy")
        self._next = stream.read(_CHUNK_BYTES + _TAG_BYTES)
        self._buffer, self._ended = b"", False

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes; fewer only at the end."""
        parts, missing = [], size if size >= 0 else 2**62
        while missing and (self._buffer or self._fill()):
            part, self._buffer = self._buffer[:missing], self._buffer[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def finish(self) -> None:
        """Read on to the end, which proves that nothing is missing."""
        while self._fill():
            pass

    def _fill(self) -> bool:
        """Decrypt one more chunk; return whether there was one."""
        if self._ended:
            return False
        chunk, self._next = self._next, self._stream.read(_CHUNK_BYTES + _TAG_BYTES)
        self._ended = not self._next
        try:
            self._buffer = self._chunks.decrypt(chunk, last=self._ended)
        except InvalidTag as error:
            raise UntrustedError(
                "The backup is damaged: a byte was changed, or its end was cut off",
                kept=_KEPT,
                todo="take another copy of it",
            ) from error
        return True


class _Chunks:
    """Numbers, encrypts and decrypts the chunks of one file."""

    def __init__(self, key: bytes, head: _Head) -> None:
        self.start = _MAGIC + canonical_json(head.model_dump(mode="json")) + b"\n"
        self._cipher, self._prefix, self._number = ChaCha20Poly1305(key), base64.urlsafe_b64decode(head.prefix), 0

    def encrypt(self, data: bytes, *, last: bool) -> bytes:
        return self._cipher.encrypt(self._nonce(last), data, self.start)

    def decrypt(self, chunk: bytes, *, last: bool) -> bytes:
        return self._cipher.decrypt(self._nonce(last), chunk, self.start)

    def _nonce(self, last: bool) -> bytes:
        nonce = self._prefix + struct.pack(">IB", self._number, last)  # an error beyond 2^32 chunks, which are 4 PiB
        self._number += 1
        return nonce


def _derive(passphrase: str, head: _Head) -> tuple[bytes, str]:
    """Return the key, and the digest by which a wrong passphrase is told from a damaged file."""
    salt = base64.urlsafe_b64decode(head.salt)
    secret = unicodedata.normalize("NFC", passphrase).encode()
    derived = Scrypt(salt=salt, length=64, n=head.n, r=head.r, p=head.p).derive(secret)
    return derived[:32], sha256_hex(b"fedpriv 1 vault\n" + derived[32:])


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()
