"""A store in a Google Drive folder, with the account of syft's own Google Drive connection, and through its library.

Drive knows files by ids of its own; a name may stand there twice. Each party writes below its own prefix alone, so a
second file of a name is made only where two processes of one party are first at the same moment: the elder counts, for
everybody, and the next write removes the other. Round trips: a question 1, a file 2, writing one 2 (3 the first time).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from fedpriv.errors import ConfigError, TransportError
from fedpriv.transport.drive_address import DriveAddress
from fedpriv.transport.files import Item, unreachable

ANSWER_SECONDS = 60
_FOLDER = "application/vnd.google-apps.folder"
_BINARY = "application/octet-stream"
_FIELDS = "id,name,mimeType,size,modifiedTime,createdTime"
_PAGE = 1000
_ONE_REQUEST_BYTES = 5_000_000
"""What Drive takes with its name in one request; more goes in a session of its own."""
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_BUSY_REASONS = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "backendError", "internalError"})
_ANYWHERE = {"supportsAllDrives": True}
Found = dict[str, Any]


class DriveFiles:
    """The files below one folder. Shared between threads, each with a connection of its own."""

    shows_at_once = False  # a search may not see for a moment what was written
    leaves_parts = False

    def __init__(self, address: DriveAddress, service: Any, credentials: Any) -> None:
        self._address, self._service, self._credentials = address, service, credentials
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        self._folders: dict[str, str] = {"": address.folder_id}

    @classmethod
    def open(cls, url: str) -> tuple[DriveFiles, str]:
        """Return the files that a URL names, and the root among them. Google is not called yet.

        Raises
        ------
        ConfigError
            If the URL or the token cannot be used.
        """
        address = DriveAddress.parse(url)
        return _shared(address.model_copy(update={"root": ""})), address.root

    def write(self, path: str, data: bytes) -> None:
        try:
            self._write(path, data)
        except FileNotFoundError:  # a folder went away
            self._write(path, data)

    def _write(self, path: str, data: bytes) -> None:
        with self._plain_errors():
            folder, name = self._made(path.rpartition("/")[0]), path.rpartition("/")[2]
            there = self._named(folder, name)
            if there:
                self._do("update", fileId=there[0]["id"], media_body=_media(data), fields="id")
            else:
                body = {"name": name, "parents": [folder], "mimeType": _BINARY}
                self._do("create", body=body, media_body=_media(data), fields="id")
            for other in there[1:]:
                self._remove(other["id"])

    def read(self, path: str, limit: int) -> bytes:
        with self._plain_errors():
            found = self._file(path)
            if not int(found.get("size") or 0) or limit < 1:
                return b""
            request = self._service.files().get_media(fileId=found["id"], **_ANYWHERE)
            request.headers["range"] = f"bytes=0-{limit - 1}"  # whoever asks wants no more of it
            with self._connection() as connection:
                return bytes(request.execute(http=connection))[:limit]

    def list(self, path: str, limit: int) -> list[Item]:
        with self._plain_errors():
            found = self._search(f"'{self._folder(path)}' in parents and trashed = false", limit)
        elder: dict[str, Found] = {}
        for item in sorted(found, key=_age):
            elder.setdefault(item["name"], item)
        return [_item(item) for item in elder.values()][:limit]

    def look(self, path: str) -> Item:
        with self._plain_errors():
            return _item(self._file(path))

    def remove(self, path: str) -> None:
        with self._plain_errors():
            folder, name = self._folder(path.rpartition("/")[0]), path.rpartition("/")[2]
            found = self._named(folder, name)
            if not found:
                raise FileNotFoundError(f"there is no {path}")
            for each in found:
                self._remove(each["id"])

    def make_folder(self, path: str) -> None:
        with self._plain_errors():
            if not path:
                self._do("get", fileId=self._address.folder_id, fields="id")  # nothing is made: is it there for us?
            self._made(path)

    def remove_folder(self, path: str) -> None:
        """Remove a folder if it is empty: Drive would take what is in it, too."""
        with contextlib.suppress(FileNotFoundError), self._plain_errors():
            folder = self._folder(path)
            if path and not self._search(f"'{folder}' in parents and trashed = false"):
                self._folders.pop(path, None)
                self._remove(folder)

    def stamp(self, path: str) -> int | None:
        return None

    # -- names and ids -------------------------------------------------------------------------------------------

    def _folder(self, path: str) -> str:
        """Return a folder's id; ``FileNotFoundError`` if there is none."""
        known = self._folders.get(path)
        if known is not None:
            return known
        parent, _, name = path.rpartition("/")
        found = [one for one in self._named(self._folder(parent), name) if one["mimeType"] == _FOLDER]
        if not found:
            raise FileNotFoundError(f"there is no {path}")
        self._folders[path] = found[0]["id"]
        return self._folders[path]

    def _made(self, path: str) -> str:
        """Return a folder's id, of one that is made if it is missing."""
        try:
            return self._folder(path)
        except FileNotFoundError:
            parent, _, name = path.rpartition("/")
            body = {"name": name, "parents": [self._made(parent)], "mimeType": _FOLDER}
            self._do("create", body=body, fields="id")
            return self._folder(path)  # the eldest of those that others made at the same moment

    def _file(self, path: str) -> Found:
        folder, name = path.rpartition("/")[0], path.rpartition("/")[2]
        found = [one for one in self._named(self._folder(folder), name) if one["mimeType"] != _FOLDER]
        if not found:
            raise FileNotFoundError(f"there is no {path}")
        return found[0]

    def _named(self, folder: str, name: str) -> list[Found]:
        """Return what has a name in a folder, the eldest first; names of a store hold no quotes."""
        return sorted(self._search(f"name = '{name}' and '{folder}' in parents and trashed = false"), key=_age)

    # -- requests ------------------------------------------------------------------------------------------------

    def _search(self, query: str, limit: int = _PAGE) -> list[Found]:
        found: list[Found] = []
        page = None
        while True:
            answer = self._do(
                "list",
                q=query,
                fields=f"nextPageToken,files({_FIELDS})",
                pageSize=_PAGE,
                pageToken=page,
                includeItemsFromAllDrives=True,
            )
            found += answer.get("files", [])
            page = answer.get("nextPageToken")
            if not page or len(found) >= limit:
                return found

    def _remove(self, file_id: str) -> None:
        from googleapiclient.errors import HttpError

        try:
            self._do("delete", fileId=file_id)
        except HttpError as error:
            if error.status_code != http.client.FORBIDDEN:
                raise
            self._do("update", fileId=file_id, body={"trashed": True}, fields="id")  # all that a shared drive may allow

    def _do(self, what: str, **options: Any) -> Any:
        request = getattr(self._service.files(), what)(**options, **_ANYWHERE)
        with self._connection() as connection:
            return request.execute(http=connection)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        """Lend a connection that no other thread uses; one that failed is closed."""
        from google_auth_httplib2 import AuthorizedHttp
        from googleapiclient.errors import HttpError
        from googleapiclient.http import build_http

        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            plain = build_http()
            plain.timeout = ANSWER_SECONDS
            connection = AuthorizedHttp(self._credentials, http=plain)
        try:
            yield connection
        except HttpError:  # an answer like any other
            self._idle.put(connection)
            raise
        except BaseException:
            connection.close()
            raise
        self._idle.put(connection)

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Let none of the library's own exceptions out, and nothing of a token."""
        import httplib2
        from google.auth.exceptions import GoogleAuthError
        from google.auth.exceptions import TransportError as AuthTransportError
        from googleapiclient.errors import Error, HttpError

        where = self._address.shown
        try:
            yield
        except (FileNotFoundError, PermissionError, TransportError):
            raise
        except HttpError as error:
            raise self._refusal(error) from error
        except AuthTransportError as error:
            raise unreachable(where, "Google's login does not answer") from error
        except GoogleAuthError as error:
            raise PermissionError(f"Google does not accept the token {self._address.token}: log in again") from error
        except (OSError, http.client.HTTPException, httplib2.HttpLib2Error) as error:
            raise unreachable(where, str(error)[:200] or type(error).__name__) from error
        except Error as error:
            raise OSError(f"{type(error).__name__}: {str(error)[:200]}") from error

    def _refusal(self, error: Any) -> Exception:
        status, details = error.status_code, error.error_details if isinstance(error.error_details, list) else []
        reasons = {one.get("reason") for one in details if isinstance(one, dict)}
        words = str(error.reason or status)[:200]
        if status in _BUSY or reasons & _BUSY_REASONS:
            return unreachable(self._address.shown, f"it answered {status}: {words}")
        if status == http.client.NOT_FOUND:
            self._folders = {"": self._address.folder_id}  # a folder whose id was known is gone: the names tell more
            return FileNotFoundError(words)
        if status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            return PermissionError(f"{self._address.shown} does not allow it to this account: {words}")
        return OSError(f"it answered {status}: {words}")


def _age(found: Found) -> tuple[str, str]:
    return str(found.get("createdTime", "")), found["id"]


def _item(found: Found) -> Item:
    modified = found.get("modifiedTime")
    return Item(
        name=found["name"],
        size_bytes=int(found.get("size") or 0),
        is_file=found["mimeType"] != _FOLDER,
        modified_s=datetime.fromisoformat(modified).timestamp() if modified else None,
    )


def _media(data: bytes) -> Any:
    import io

    from googleapiclient.http import MediaIoBaseUpload

    return MediaIoBaseUpload(io.BytesIO(data), mimetype=_BINARY, resumable=len(data) > _ONE_REQUEST_BYTES)


_opening = threading.Lock()
_open_files: dict[DriveAddress, DriveFiles] = {}


def _shared(address: DriveAddress) -> DriveFiles:
    """Return the files of a folder: all stores there share its connections and the ids that are known."""
    with _opening:
        if address not in _open_files:
            _open_files[address] = _opened(address)
        return _open_files[address]


def _opened(address: DriveAddress) -> DriveFiles:
    from googleapiclient.discovery import build_from_document
    from googleapiclient.discovery_cache import get_static_doc

    credentials = _credentials(address)
    document = json.loads(get_static_doc("drive", "v3") or "{}")
    if address.endpoint_url:
        document |= {"rootUrl": f"{address.endpoint_url}/", "baseUrl": f"{address.endpoint_url}/drive/v3/"}
    return DriveFiles(address, build_from_document(document, credentials=credentials), credentials)


def _credentials(address: DriveAddress) -> Any:
    """Return the account of a token's file: that of syft's login, or a service account's."""
    from google.oauth2.credentials import Credentials
    from google.oauth2.service_account import Credentials as ServiceCredentials
    from syft.sync.connections.drive.gdrive_transport import SCOPES

    try:
        said = json.loads(address.token.read_text(encoding="utf-8"))
        if said.get("type") == "service_account":
            return ServiceCredentials.from_service_account_info(said, scopes=SCOPES)
        return Credentials.from_authorized_user_info(said, SCOPES)
    except (OSError, ValueError, AttributeError, KeyError) as error:
        reason = type(error).__name__  # its words may show a part of the token
        raise ConfigError(
            f"The token {address.token} cannot be read ({reason})", todo="log in with syft again, which writes one"
        ) from None
