"""Addresses of stores in Google Drive: a folder that all parties may write to, and whose account is used.

``gdrive://FOLDER_ID/folder?token=/path/to/token.json``. The folder's id stands at the end of its address in a browser.
The token is what syft's own Google Drive connection logs in with, or a service account's key.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import Field

from fedpriv.errors import ConfigError
from fedpriv.study.section import Section
from fedpriv.transport.address import check_endpoint, is_loopback, split_address

_EXAMPLE = "write it like gdrive://FOLDER_ID/study?token=/path/to/token.json"
_ID = re.compile(r"[A-Za-z0-9_-]{4,200}")
_OTHERS = 0o077


class DriveAddress(Section):
    """Where in Google Drive a store lies, and who we are there.

    Attributes
    ----------
    folder_id : str
        The shared folder's id.
    root : str
        The store's folder in it; empty for the shared folder itself.
    token : Path
        A file with the account's token, which others cannot read.
    endpoint_url : str
        A server on this machine that speaks Drive's protocol, for tests; else empty.
    """

    folder_id: str = Field(min_length=1)
    root: str = ""
    token: Path
    endpoint_url: str = ""

    @property
    def shown(self) -> str:
        """The store as people are shown it."""
        return f"gdrive://{self.folder_id}"

    @classmethod
    def parse(cls, url: str) -> DriveAddress:
        """Read a URL.

        Raises
        ------
        ConfigError
            If a part is missing or unknown, or the token is not there, or others can read it.
        """
        parts, options = split_address(url, options=("token", "endpoint_url"), example=_EXAMPLE)
        if not _ID.fullmatch(parts.netloc):
            raise ConfigError("The store's address lacks the id of a folder in Google Drive", todo=_EXAMPLE)
        endpoint = options.get("endpoint_url", "")
        if endpoint and not is_loopback(urlsplit(check_endpoint(endpoint, example=_EXAMPLE)).hostname or ""):
            raise ConfigError("Google Drive is nowhere else than at Google", kept="It was not called", todo=_EXAMPLE)
        if "token" not in options:
            raise ConfigError("The store's address does not say where the token for Google Drive is", todo=_EXAMPLE)
        token = Path(options["token"]).expanduser()
        if not token.is_file():
            raise ConfigError(
                f"The token {token} for Google Drive is not there",
                todo="log in with syft, which writes one, or download a service account's key",
            )
        if token.stat().st_mode & _OTHERS:
            raise ConfigError(
                f"Others on this machine can read the token {token}", kept="It was not used", todo=f"chmod 600 {token}"
            )
        return cls(
            folder_id=parts.netloc, root=unquote(parts.path).strip("/"), token=token, endpoint_url=endpoint.rstrip("/")
        )
