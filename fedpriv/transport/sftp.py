"""A store on an SFTP server: one encrypted connection for all threads, few round trips, safe against a bad network.

Round trips: a file that is not there 1, a small file 2, writing a file 3. A write goes to a name of its own, is flushed
to the server's disk and then renamed over the old one (``posix-rename@openssh.com``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import asyncssh
from asyncssh.constants import FILEXFER_TYPE_DIRECTORY, FILEXFER_TYPE_REGULAR

from fedpriv.errors import HostKeyError, TransportError
from fedpriv.transport.files import Item, temporary_name, unreachable
from fedpriv.transport.sftp_address import SftpAddress

CHUNK_BYTES = 128 * 1024
"""At most so much is asked for or sent in one request. Each costs 0.25 ms of CPU time here, and a slow link's queue is
filled by them; a server says how much it takes (``limits@openssh.com``: OpenSSH 255 KiB), and answers that in full
unless the file ends there."""
_CIPHERS = "^aes256-gcm@openssh.com,aes128-gcm@openssh.com"
"""Asked for first, what else asyncssh knows after them: a processor's own AES takes half the time of ChaCha20."""
_HOST_KEYS = ("ssh-ed25519", *(f"ecdsa-sha2-nistp{bits}" for bits in (256, 384, 521)), "rsa-sha2-512", "rsa-sha2-256")
"""Kinds of host keys in the order in which they are asked for. A server has several and shows the first kind that is
asked for; a fingerprint does not say its kind, and the one that operators read out is ssh_host_ed25519_key's."""
_SAFE_CHUNK_BYTES = 32 * 1024
"""What every server takes, also one that does not say."""
_FIRST_BYTES, _MOST_BYTES = 256 * 1024, 8 * 2**20
_UNDER_WAY_SECONDS = 0.5
ANSWER_SECONDS = 30.0
"""A request that has no answer for so long ends the connection; the next one makes another."""
_CONNECT_SECONDS = 30.0
_READ_ONLY, _LEAST_FREE_BYTES = 1, 64 * 1024
_ALIVE_SECONDS = 10
_LOST = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError, ConnectionError, EOFError)
_ABSENT = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)
T = TypeVar("T")


class SftpFiles:
    """The files of one account on one server.

    *Guarantee*: nothing is sent to a server that does not prove the pinned host key, and only login by key is tried.
    Neither OpenSSH's configuration nor an agent is asked. *Assumption*: the fingerprint is the one that the server's
    operator read out; nobody else writes to ``known_hosts``.
    """

    shows_at_once = True  # the rename that was answered was done on the server's own disk
    leaves_parts = True

    def __init__(self, address: SftpAddress) -> None:
        self._address = address
        self._lock: asyncio.Lock | None = None
        self._connection: asyncssh.SSHClientConnection | None = None
        self._client: asyncssh.SFTPClient | None = None
        self._left_behind: list[str] = []
        self._folders: set[str] = set()

    @classmethod
    def open(cls, url: str) -> tuple[SftpFiles, str]:
        """Return the files of a URL and the root in them; all stores of one account share a connection."""
        address = SftpAddress.parse(url)
        return _shared(address.model_copy(update={"root": "/"})), address.root

    def write(self, path: str, data: bytes) -> None:
        self._run(lambda client: self._write(client, path, data))

    def read(self, path: str, limit: int) -> bytes:
        return self._run(lambda client: _read(client, path, limit))

    def list(self, path: str, limit: int) -> list[Item]:
        return self._run(lambda client: _in_time(_list(client, path, limit)))

    def look(self, path: str) -> Item:
        return self._run(lambda client: _look(client, path))

    def remove(self, path: str) -> None:
        self._run(lambda client: _in_time(client.remove(path)))

    def make_folder(self, path: str) -> None:
        if path not in self._folders:
            self._run(lambda client: _make_folder(client, path))
            self._folders.add(path)  # if it goes away, the next write makes it again

    def remove_folder(self, path: str) -> None:
        with contextlib.suppress(OSError):  # it is not empty, or gone
            self._run(lambda client: _in_time(client.rmdir(path)))
            self._folders.discard(path)

    def stamp(self, path: str) -> int | None:
        return None  # asking costs as much as looking for the next message

    def close(self) -> None:
        """End the connection; the next call makes another."""
        asyncio.run_coroutine_threadsafe(self._drop(), _loop()).result()

    # -- the connection ------------------------------------------------------------------------------------------

    def _run(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        """Do something on the connection, from any thread.

        Raises
        ------
        OSError
            If the server says no.
        UnreachableError
            If it does not answer.
        """
        return asyncio.run_coroutine_threadsafe(self._with_client(work), _loop()).result()

    async def _with_client(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        where = self._address.shown
        for is_last in (False, True):
            client, is_new = await self._connected()
            try:
                return await work(client)
            except _ABSENT as error:
                raise FileNotFoundError(error.reason) from error
            except TimeoutError as error:
                await self._drop(client)
                raise unreachable(where, f"no answer within {ANSWER_SECONDS:.0f} s") from error
            except _LOST as error:
                await self._drop(client)
                if is_new or is_last:  # an idle connection may have died long ago: that alone is worth a second try
                    raise unreachable(where, str(error) or "the connection was lost") from error
            except asyncssh.SFTPError as error:
                raise OSError(error.reason or type(error).__name__) from error
        raise AssertionError

    async def _connected(self) -> tuple[asyncssh.SFTPClient, bool]:
        """Return the client and whether it was made just now."""
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            if self._client is not None:
                return self._client, False
            self._client = await self._connect()
            return self._client, True

    async def _connect(self) -> asyncssh.SFTPClient:
        address = self._address
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                self._connection = await asyncssh.connect(
                    address.host,
                    address.port,
                    username=address.user,
                    client_keys=[str(address.key)],
                    known_hosts=str(address.known_hosts) if address.known_hosts else ([], [], []),
                    client_factory=functools.partial(_PinnedHost, address.host_key),
                    server_host_key_algs=_HOST_KEYS if address.host_key else (),
                    config=None,
                    agent_path=None,
                    preferred_auth="publickey",
                    encryption_algs=_CIPHERS,
                    keepalive_interval=_ALIVE_SECONDS,
                    keepalive_count_max=3,
                )
                return await self._connection.start_sftp_client()
        except asyncssh.HostKeyNotVerifiable as error:
            raise HostKeyError(
                f"The store {address.shown} shows another host key than the one that is pinned",
                kept="Nothing was sent to it",
                todo="ask its operator for the fingerprint of its ed25519 key, over the phone",
            ) from error
        except asyncssh.PermissionDenied as error:
            raise TransportError(
                f"The store {address.shown} does not accept the key {address.key}",
                todo="have its public half added to the account there",
            ) from error
        except TimeoutError as error:
            raise unreachable(address.shown, f"no connection within {_CONNECT_SECONDS:.0f} s") from error
        except (OSError, asyncssh.Error, ValueError) as error:
            raise unreachable(address.shown, str(error) or type(error).__name__) from error

    async def _drop(self, client: asyncssh.SFTPClient | None = None) -> None:
        """Let go of a connection, unless another has taken its place already."""
        if client is not None and client is not self._client:
            return
        connection, self._connection, self._client = self._connection, None, None
        if connection is not None:
            connection.abort()

    # -- writing -------------------------------------------------------------------------------------------------

    async def _write(self, client: asyncssh.SFTPClient, path: str, data: bytes) -> None:
        try:
            await self._replace(client, path, data)
        except asyncssh.SFTPFailure as error:  # what the server says of a full disk, and of much else
            raise OSError(await _why(client, path, len(data)) or error.reason) from error

    async def _replace(self, client: asyncssh.SFTPClient, path: str, data: bytes) -> None:
        temporary = temporary_name(path)
        try:
            file = await _in_time(client.open(temporary, "xb", block_size=0))
        except _ABSENT:
            await _make_folder(client, path.rpartition("/")[0])
            file = await _in_time(client.open(temporary, "xb", block_size=0))
        try:
            await _write_all(file, data, chunk_bytes=_chunk_bytes(client.limits.max_write_len))
            await _gather(file.close(), client.posix_rename(temporary, path))  # the server takes them in this order
        except BaseException:
            self._left_behind.append(temporary)
            _later(file.close())
            raise
        finally:
            if self._left_behind:
                await self._clear(client)

    async def _clear(self, client: asyncssh.SFTPClient) -> None:
        """Remove what failed writes left, now or at a later write: on a full disk it takes the space of the next."""
        for temporary in list(self._left_behind):
            try:
                await _in_time(client.remove(temporary))
            except _ABSENT:
                pass
            except (asyncssh.Error, OSError, TimeoutError):
                return
            with contextlib.suppress(ValueError):
                self._left_behind.remove(temporary)


class _PinnedHost(asyncssh.SSHClient):
    """Accepts one host key, by its fingerprint; where none is pinned, none that the known_hosts file lacks."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return bool(self._fingerprint) and key.get_fingerprint("sha256") == self._fingerprint


# -- requests ------------------------------------------------------------------------------------------------------


async def _read(client: asyncssh.SFTPClient, path: str, limit: int) -> bytes:
    file = await _in_time(client.open(path, "rb", block_size=0))
    try:
        chunks: list[bytes] = []
        chunk_bytes = _chunk_bytes(client.limits.max_read_len)
        starts = range(0, limit, chunk_bytes)
        requests = _in_window(lambda at: file.read(min(chunk_bytes, limit - at), at), starts, chunk_bytes=chunk_bytes)
        async with contextlib.aclosing(requests):
            async for chunk in requests:
                chunks.append(bytes(chunk))
                if len(chunk) < chunk_bytes:  # the end of the file
                    break
        return b"".join(chunks)
    finally:
        _later(file.close())


def _chunk_bytes(most_bytes: int) -> int:
    """Return the size of a request, where a server takes ``most_bytes``."""
    return max(_SAFE_CHUNK_BYTES, min(CHUNK_BYTES, most_bytes))


async def _write_all(file: asyncssh.SFTPClientFile, data: bytes, *, chunk_bytes: int) -> None:
    """Write, and have it flushed to the server's disk: the last request, in the order in which the server works."""

    def request(at: int) -> Coroutine[Any, Any, Any]:
        return file.write(data[at : at + chunk_bytes], at) if at < len(data) else _flush(file)

    places = [*range(0, len(data), chunk_bytes), len(data)]
    async for _ in _in_window(request, places, chunk_bytes=chunk_bytes):
        pass


async def _why(client: asyncssh.SFTPClient, path: str, size: int) -> str:
    """Return why a write may have failed, from the state of the server's disk; nothing if it does not tell."""
    try:
        disk = await _in_time(client.statvfs(path.rpartition("/")[0]))
    except (asyncssh.Error, OSError, ValueError):
        return ""
    if (disk.flags or 0) & _READ_ONLY:
        return "its disk is read-only"
    free = (disk.bavail or 0) * (disk.frsize or 0)
    return f"its disk is full: {free} bytes are left for {size}" if free < 2 * size + _LEAST_FREE_BYTES else ""


async def _flush(file: asyncssh.SFTPClientFile) -> None:
    with contextlib.suppress(asyncssh.SFTPOpUnsupported):
        await file.fsync()


async def _in_window(
    request: Callable[[int], Coroutine[Any, Any, T]], places: Iterable[int], *, chunk_bytes: int
) -> AsyncGenerator[T, None]:
    """Send requests ahead of their answers and give the answers in order.

    At most about half a second's worth is under way, by what was measured so far: more would fill the queues of a slow
    link, where the requests of others wait behind it.
    """
    under_way: list[asyncio.Task[T]] = []
    first, most = _FIRST_BYTES // chunk_bytes, _MOST_BYTES // chunk_bytes
    started, done, room = time.monotonic(), 0, first
    places = iter(places)
    try:
        while True:
            while len(under_way) < room and (place := next(places, None)) is not None:
                under_way.append(asyncio.create_task(request(place)))
            if not under_way:
                return
            answer = await _in_time(under_way[0])
            under_way.pop(0)
            yield answer
            done += 1
            rate = done / max(time.monotonic() - started, 1e-3)
            room = round(min(max(rate * _UNDER_WAY_SECONDS, first), room + 1, most))
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _list(client: asyncssh.SFTPClient, path: str, limit: int) -> list[Item]:
    found: list[Item] = []
    # By bytes: one name that is no UTF-8, which anybody can give to a file of theirs, would end the whole listing.
    async with contextlib.aclosing(client.scandir(os.fsencode(path))) as entries:  # type: ignore[type-var]
        async for entry in entries:
            name = os.fsdecode(entry.filename)
            if name not in (".", ".."):
                found.append(_item(name, entry.attrs))
            if len(found) >= limit:
                break
    return found


async def _look(client: asyncssh.SFTPClient, path: str) -> Item:
    return _item(path.rpartition("/")[2], await _in_time(client.stat(path)))


def _item(name: str, found: asyncssh.SFTPAttrs) -> Item:
    modified_s = None if found.mtime is None else float(found.mtime)
    is_file = found.type == FILEXFER_TYPE_REGULAR
    is_folder = found.type == FILEXFER_TYPE_DIRECTORY  # of a link, a listing says that it is one
    return Item(name=name, size_bytes=found.size or 0, is_file=is_file, is_folder=is_folder, modified_s=modified_s)


async def _make_folder(client: asyncssh.SFTPClient, path: str) -> None:
    """Make a folder, and its parents from the nearest one that is there: most of the time that is the last but one."""
    try:
        await _in_time(client.mkdir(path))
    except _ABSENT:
        await _make_folder(client, path.rpartition("/")[0] or "/")
        with contextlib.suppress(asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):  # another was faster
            await _in_time(client.mkdir(path))
    except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists, asyncssh.SFTPPermissionDenied):
        if not await _in_time(client.isdir(path)):
            raise


async def _gather(*requests: Coroutine[Any, Any, Any]) -> None:
    await _in_time(asyncio.gather(*requests))


async def _in_time(request: Awaitable[T]) -> T:
    return await asyncio.wait_for(request, ANSWER_SECONDS)


_closing: set[asyncio.Task[Any]] = set()


def _later(request: Coroutine[Any, Any, Any]) -> None:
    """Do something that nobody waits for."""
    task = asyncio.create_task(request)
    _closing.add(task)
    task.add_done_callback(lambda done: (_closing.discard(done), done.cancelled() or done.exception()))


# -- one event loop for all connections of this process -------------------------------------------------------------


_starting = threading.Lock()
_shared_files: dict[SftpAddress, SftpFiles] = {}
_loops: list[asyncio.AbstractEventLoop] = []


def _loop() -> asyncio.AbstractEventLoop:
    with _starting:
        if not _loops:
            logging.getLogger("asyncio").addFilter(_is_news)
            _loops.append(asyncio.new_event_loop())
            threading.Thread(target=_loops[0].run_forever, name="sftp", daemon=True).start()
        return _loops[0]


def _is_news(record: logging.LogRecord) -> bool:
    """Say whether a line of asyncio's log is worth one: a lost connection is told of elsewhere, once."""
    return record.getMessage() != "socket.send() raised exception."


def _shared(address: SftpAddress) -> SftpFiles:
    with _starting:
        return _shared_files.setdefault(address, SftpFiles(address))
