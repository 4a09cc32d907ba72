"""A store on a WebDAV server (Nextcloud, Apache, ...): HTTPS, a user of ``~/.netrc``, whole files by PUT and MOVE.

``webdavs://host/folder`` is called over https://; ``webdav://`` is for a server on this machine only. A file is put
under a name of its own and moved over the old one: what RFC 4918 calls MOVE with ``Overwrite: T``. A reader sees the
old one, the new one, or, with servers that remove before they move, none for a moment: the parties bear that, since
what is replaced (progress, acknowledgements, public keys) is asked for again. ``fedpriv store check`` tells which.
"""

from __future__ import annotations

import contextlib
import functools
import netrc
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pydantic import Field

from fedpriv.errors import ConfigError, TransportError
from fedpriv.study.section import Section
from fedpriv.transport.address import is_loopback, port_of, split_address
from fedpriv.transport.files import Item, temporary_name, unreachable

if TYPE_CHECKING:
    from webdav4.client import Client

_EXAMPLE = "write it like webdavs://host/folder, with the user and the password in ~/.netrc"
_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 60.0
_CHUNK_BYTES = 256 * 1024
_BUSY = frozenset({408, 423, 425, 429, 500, 502, 503, 504})
"""What a server says that may do it a moment later."""


class WebdavAddress(Section):
    """Where a WebDAV server lies, and the store on it.

    Attributes
    ----------
    base_url : str
        The server, as ``https://host:port``.
    host : str
        Its name, by which ``~/.netrc`` gives a user.
    root : str
        The store's folder, absolute.
    netrc : Path or None
        Another file than ``~/.netrc``.
    """

    base_url: str
    host: str
    root: str = Field(min_length=2)
    netrc: Path | None = None

    @classmethod
    def parse(cls, url: str) -> WebdavAddress:
        """Read a URL.

        Raises
        ------
        ConfigError
            If a part is missing, unknown or a secret, or the server would be called unencrypted.
        """
        parts, options = split_address(url, options=("netrc",), example=_EXAMPLE)
        if parts.username is not None:
            raise ConfigError("The store's address holds a user", kept="It was not called", todo=_EXAMPLE)
        if not parts.hostname or len(parts.path.strip("/")) < 1:
            raise ConfigError("The store's address lacks a host or a folder", todo=_EXAMPLE)
        port_of(parts.netloc, default=443, example=_EXAMPLE)
        if parts.scheme == "webdav" and not is_loopback(parts.hostname):
            raise ConfigError(
                f"The store's server {parts.hostname} would be called over http://, which anybody on the way can read",
                kept="It was not called",
                todo="write webdavs://; webdav:// is for this machine only (127.0.0.1)",
            )
        scheme = "https" if parts.scheme == "webdavs" else "http"
        return cls(
            base_url=f"{scheme}://{parts.netloc}",
            host=parts.hostname,
            root="/" + unquote(parts.path).strip("/"),
            netrc=Path(options["netrc"]).expanduser() if "netrc" in options else None,
        )


class WebdavFiles:
    """The files of one server. One pool of connections for all threads."""

    shows_at_once = False  # there are proxies and caches of many kinds in front of such servers
    leaves_parts = False

    def __init__(self, client: Client, address: WebdavAddress) -> None:
        self._client = client
        self._address = address
        self._folders: set[str] = set()

    @classmethod
    def open(cls, url: str) -> tuple[WebdavFiles, str]:
        """Return the files that a URL names, and the root in them.

        Raises
        ------
        ConfigError
            If the URL cannot be used, the package is not installed, or ``~/.netrc`` cannot be read.
        """
        address = WebdavAddress.parse(url)
        try:
            import webdav4.client  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "Stores at webdavs:// need a package that is not installed",
                todo='install it with pip install "fedpriv[webdav]"',
            ) from error
        return cls(_client(address.base_url, address.host, _user(address)), address), address.root

    def write(self, path: str, data: bytes) -> None:
        temporary = temporary_name(path)
        with self._plain_errors():
            try:
                if not self._put(temporary, data):
                    self.make_folder(path.rpartition("/")[0])
                    self._request("PUT", temporary, content=data)
                self._client.move(temporary, path, overwrite=True)
            except BaseException:
                with contextlib.suppress(Exception):  # what was written of it takes space; a listing does not show it
                    self._client.remove(temporary)
                raise

    def read(self, path: str, limit: int) -> bytes:
        with self._plain_errors():
            with self._client.http.stream("GET", self._client.join_url(path)) as answer:
                self._check(answer, path)
                data = bytearray()
                for chunk in answer.iter_bytes(_CHUNK_BYTES):
                    data += chunk
                    if len(data) >= limit:
                        break
            return bytes(data[:limit])

    def list(self, path: str, limit: int) -> list[Item]:
        with self._plain_errors():
            found = [_item(one) for one in self._client.ls(path, detail=True) if isinstance(one, dict)]
        return found[:limit]

    def look(self, path: str) -> Item:
        with self._plain_errors():
            return _item(self._client.info(path))

    def remove(self, path: str) -> None:
        with self._plain_errors():
            self._client.remove(path)

    def make_folder(self, path: str) -> None:
        """Make a folder, and its parents from the nearest one that is there."""
        if path in ("", "/") or path in self._folders:
            return
        with self._plain_errors():
            answer = self._send("MKCOL", path)
            if answer.status_code == HTTPStatus.CONFLICT:  # there is no parent
                self.make_folder(path.rpartition("/")[0])
                answer = self._send("MKCOL", path)
            if answer.status_code != HTTPStatus.METHOD_NOT_ALLOWED:  # it is there
                self._check(answer, path)
            self._folders.add(path)

    def remove_folder(self, path: str) -> None:
        """Remove a folder if it is empty: the protocol's own DELETE would take what is in it."""
        with contextlib.suppress(FileNotFoundError):
            if not self.list(path, 1):
                self._folders.discard(path)
                self.remove(path)

    def stamp(self, path: str) -> int | None:
        return None

    def _put(self, path: str, data: bytes) -> bool:
        """Put a file; return False if its folder is not there."""
        answer = self._send("PUT", path, content=data)
        if answer.status_code in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
            self._folders.clear()  # if one went away, the next write makes it again
            return False
        self._check(answer, path)
        return True

    def _request(self, method: str, path: str, **content: Any) -> None:
        self._check(self._send(method, path, **content), path)

    def _send(self, method: str, path: str, **content: Any) -> Any:
        return self._client.http.request(method, self._client.join_url(path), **content)

    def _check(self, answer: Any, path: str) -> None:
        status = answer.status_code
        if status == HTTPStatus.NOT_FOUND:
            raise FileNotFoundError(f"there is no {path}")
        if status in _BUSY:
            raise unreachable(self._address.base_url, f"it answered {status}")
        if status == HTTPStatus.INSUFFICIENT_STORAGE:
            raise OSError("its disk is full")
        if not 200 <= status < 300:
            raise OSError(_refusal(status))

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        import httpx
        from webdav4.client import BadGatewayError, HTTPError, InsufficientStorage, ResourceNotFound

        where = self._address.base_url
        try:
            yield
        except httpx.TransportError as error:
            raise unreachable(where, str(error) or type(error).__name__) from error
        except ResourceNotFound as error:
            raise FileNotFoundError(str(error)) from error
        except InsufficientStorage as error:
            raise OSError("its disk is full") from error
        except BadGatewayError as error:
            raise unreachable(where, "it answered 502") from error
        except HTTPError as error:
            if error.status_code in _BUSY:
                raise unreachable(where, f"it answered {error.status_code}") from error
            raise OSError(_refusal(error.status_code)) from error
        except (OSError, TransportError):
            raise
        except Exception as error:  # a client's, and those of its reader of XML, which may be any
            raise OSError(f"{type(error).__name__}: {str(error)[:200]}") from error


def _refusal(status: int) -> str:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"it does not allow that to this user: it answered {status}"
    return f"it answered {status}"


def _user(address: WebdavAddress) -> tuple[str, str] | None:
    """Return the user of a server by ``~/.netrc``; None where the file names none."""
    path = address.netrc or Path.home() / ".netrc"
    if not path.is_file():
        if address.netrc is not None:
            raise ConfigError(f"The file {path} with the store's user is not there", todo=_EXAMPLE)
        return None
    try:
        found = netrc.netrc(str(path)).authenticators(address.host)
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError) as error:
        reason = type(error).__name__  # its words may show a line of the file
        raise ConfigError(f"The file {path} cannot be read ({reason})", todo="correct it; chmod 600") from None
    return (found[0], found[2]) if found else None


@functools.lru_cache
def _client(base_url: str, host: str, user: tuple[str, str] | None) -> Client:
    """Return the connections to a server: all stores of one user there share them."""
    import httpx
    from webdav4.client import Client

    from fedpriv.transport.webdav_answers import bound

    return Client(
        base_url,
        auth=user,
        retry=False,
        timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
        trust_env=not is_loopback(host),  # proxies
        follow_redirects=False,
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [bound]},
    )


def _item(found: dict[str, Any]) -> Item:
    modified = found.get("modified")
    return Item(
        name=str(found["name"]).rstrip("/").rpartition("/")[2],
        size_bytes=int(found.get("content_length") or 0),
        is_file=found.get("type") == "file",
        modified_s=modified.timestamp() if modified is not None else None,
    )
