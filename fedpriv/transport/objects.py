"""Object stores: S3 and what speaks its protocol, Google Cloud Storage, Azure Blob. Whole objects, no folders.

All three through obstore, which is Rust's ``object_store``: one package without dependencies, where their own Python
libraries need forty, and need versions that exclude each other. It finds credentials as each cloud's tools do.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fedpriv.errors import ConfigError
from fedpriv.transport.aws_profile import profile_keys, profile_region
from fedpriv.transport.files import Item, unreachable
from fedpriv.transport.object_address import ObjectAddress

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore

_EXTRAS = {"s3": "s3", "gs": "gcs", "az": "azure"}
_CLIENT: ClientConfig = {
    "connect_timeout": "10s",
    "timeout": "120s",  # of one request: a part of a blob passes at 0.3 Mbit/s
    "user_agent": "fedpriv",
}
_PAGE = 1000
"""Objects that a server lists in one answer: S3 and Google no more, Azure up to five times as many."""
_PIECE_BYTES = 256 * 1024
_LISTED_SECONDS = 120.0
"""Until the end of a listing, however many answers it has."""
_METADATA = re.compile(r"169\.254\.169\.254|metadata\.google|metadata\.azure", re.IGNORECASE)
_STATUS = re.compile(r"status code: (\d{3})")
_QUERY = re.compile(r"\?\S+")
_CREDENTIALS = {
    "s3": "run `aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key file",
    "az": "set AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_ACCOUNT_KEY, or AZURE_USE_AZURE_CLI=true after `az login`",
}


class ObjectFiles:
    """The objects of one bucket. A put object is seen whole or not at all: so all three clouds have it.

    Its own repetitions are off: :mod:`fedpriv.transport.retrying` is the one place for them.
    """

    leaves_parts = False

    def __init__(self, store: ObjectStore, address: ObjectAddress) -> None:
        import obstore

        self._obstore = obstore
        self._store = store
        self._address = address
        self.shows_at_once = address.is_the_clouds_own
        """All three clouds say so; of other servers with their protocols it is not known."""

    @classmethod
    def open(cls, url: str) -> tuple[ObjectFiles, str]:
        """Return the objects that a URL names, and the root among them. The server is not called yet.

        Raises
        ------
        ConfigError
            If the URL cannot be used, the package is not installed, or credentials cannot be read.
        """
        address = ObjectAddress.parse(url)
        try:
            from obstore import store as kinds
        except ImportError as error:
            raise ConfigError(
                f"Stores at {address.cloud}:// need a package that is not installed",
                todo=f'install it with pip install "fedpriv[{_EXTRAS[address.cloud]}]"',
            ) from error
        options: ClientConfig = {**_CLIENT, "allow_http": address.endpoint_url.startswith("http://")}
        if options["allow_http"]:
            options["proxy_excludes"] = "localhost,127.0.0.0/8,::1"
        given: dict[str, Any] = {"client_options": options, "retry_config": {"max_retries": 0}}
        with _plain_config_errors(address):
            if address.cloud == "s3":
                store: Any = kinds.S3Store(address.bucket, **given, **_s3(address))
            elif address.cloud == "gs":
                store = kinds.GCSStore(address.bucket, **given, **_gcs(address))
            else:
                store = kinds.AzureStore(address.bucket, **given, **_azure(address))
        return cls(store, address), address.root

    def write(self, path: str, data: bytes) -> None:
        with self._plain_errors():
            self._obstore.put(self._store, path, data, use_multipart=False)

    def read(self, path: str, limit: int) -> bytes:
        pieces, size = list[bytes](), 0
        with self._plain_errors():
            # Piece by piece, and no more than is wanted: what a server says of the size need not be so.
            for piece in self._obstore.get(self._store, path).stream(min_chunk_size=_PIECE_BYTES):
                pieces.append(piece)
                size += len(piece)
                if size >= limit:
                    break
        return b"".join(pieces)[:limit]

    def list(self, path: str, limit: int) -> list[Item]:
        # asyncio's loop has a thread of its own: in a notebook the one that asks may have a loop already.
        with self._plain_errors(), ThreadPoolExecutor(1, thread_name_prefix="listing") as beside:
            found = beside.submit(asyncio.run, self._listed(path, limit)).result()
        if len(found) >= limit:
            return found[:limit]
        # Each folder once, and not also as the empty object that some servers and consoles keep in its name.
        named = {item.name: item for item in sorted(found, key=lambda item: not item.is_file)}
        return [item for name, item in named.items() if name]

    async def _listed(self, path: str, limit: int) -> list[Item]:
        """List page by page, and no more than is wanted: a server can say without end that there are others.

        The library does so only where what lies in folders comes along. Boxes have none, and a party's parts and mock
        data few. Over pages without any object it goes on by itself: only its asynchronous half can be told to end.
        """
        found: list[Item] = []
        async with asyncio.timeout(_LISTED_SECONDS):
            async for page in self._obstore.list(self._store, path or None, chunk_size=_PAGE):
                found += (_item_in(path, item) for item in page)
                if len(found) >= limit:
                    break
        return found

    def look(self, path: str) -> Item:
        with self._plain_errors():
            return _item(path.rpartition("/")[2], self._obstore.head(self._store, path))

    def remove(self, path: str) -> None:
        with self._plain_errors():
            self._obstore.delete(self._store, path)

    def make_folder(self, path: str) -> None:
        pass  # a folder is the names that begin with it

    def remove_folder(self, path: str) -> None:
        pass

    def stamp(self, path: str) -> int | None:
        return None

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Let none of the library's own exceptions out, and nothing of an address that may be signed."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        where, cloud = self._address.shown, self._address.cloud
        try:
            yield
        except TimeoutError as error:
            raise unreachable(where, f"its listing does not end within {_LISTED_SECONDS:.0f} s") from error
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
                raise OSError(f"there is no bucket {where}") from error
            raise FileNotFoundError(_words(error)) from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise PermissionError(f"{where} does not allow it to these credentials: {_words(error)}") from error
        except BaseError as error:
            if _METADATA.search(str(error)):
                raise OSError(f"no credentials for {where} were found; {_CREDENTIALS[cloud]}") from error
            status = _STATUS.search(str(error))
            refused = status and status[1].startswith("4") and status[1] not in ("408", "429")
            # A name that the library does not take, which others can give to what is theirs, is none of the network.
            if refused or "invalid path" in str(error):
                raise OSError(_words(error)) from error
            raise unreachable(where, _words(error)) from error


def _s3(address: ObjectAddress) -> dict[str, Any]:
    given: dict[str, Any] = {
        "virtual_hosted_style_request": address.is_the_clouds_own,
        "disable_bulk_delete": True,  # one object each, by a request that names it
    }
    region = address.region or profile_region()
    if region:
        given["region"] = region
    if address.endpoint_url:
        given["endpoint"] = address.endpoint_url
    if (keys := profile_keys()) is not None:
        given["credential_provider"] = keys
    return given


def _gcs(address: ObjectAddress) -> dict[str, Any]:
    return {"base_url": address.endpoint_url} if address.endpoint_url else {}


def _azure(address: ObjectAddress) -> dict[str, Any]:
    endpoint = {"endpoint": address.endpoint_url} if address.endpoint_url else {}
    return {"account_name": address.account, **endpoint}


def _item_in(folder: str, found: Any) -> Item:
    """Return what an object is in a folder that it lies in, however deep: itself, or the folder there that holds it."""
    parts = found["path"].strip("/").split("/")
    depth = len(folder.split("/")) if folder else 0  # not by its words: the library writes some characters in its way
    name = parts[depth] if len(parts) > depth else ""
    return _item(name, found) if len(parts) <= depth + 1 else Item(name=name, size_bytes=0, is_file=False)


def _item(name: str, found: Any) -> Item:
    return Item(
        name=name,
        size_bytes=int(found["size"]),
        is_file=True,
        modified_s=found["last_modified"].timestamp(),
    )


def _words(error: Exception) -> str:
    """Return what an error says, on one line, without the query of an address, where signatures stand."""
    return _QUERY.sub("?...", str(error).partition("\n")[0])[:300]


@contextlib.contextmanager
def _plain_config_errors(address: ObjectAddress) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, ValueError) as error:
        raise ConfigError(
            f"The store {address.shown} cannot be opened ({_words(error)})", todo=_CREDENTIALS[address.cloud]
        ) from error
