"""The address of a store over SFTP, with the host key that is trusted: without one, nothing is sent there.

``sftp://user@host:port/folder?host_key=SHA256:...&key=/path/to/private_key`` pins one key by its fingerprint, as
``ssh-keygen -lf`` prints it; ``known_hosts=/path`` names a file instead. Without either, ``~/.ssh/known_hosts`` counts.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from pydantic import Field

from fedpriv.errors import ConfigError
from fedpriv.study.section import Section
from fedpriv.transport.address import port_of, split_address

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_OPTIONS = ("host_key", "known_hosts", "key")


class SftpAddress(Section):
    """Where a store lies, who we are there, and whom we take for it.

    Attributes
    ----------
    user, host, port : str, str, int
        The account and the server.
    root : str
        The store's folder on the server, absolute.
    key : Path
        Our private key: a file that others cannot read, without a passphrase.
    host_key : str
        The server's pinned key as ``SHA256:`` and 43 characters, or empty.
    known_hosts : Path or None
        A file in OpenSSH's form that names the server's key, where none is pinned.
    """

    user: str = Field(min_length=1)
    host: str = Field(min_length=1)
    port: int = Field(default=22, ge=1, le=65535)
    root: str = Field(min_length=1)
    key: Path
    host_key: str = ""
    known_hosts: Path | None = None

    @property
    def shown(self) -> str:
        """The server as people are shown it."""
        return f"sftp://{self.user}@{self.host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> SftpAddress:
        """Read a URL.

        Raises
        ------
        ConfigError
            If a part is missing or unknown, it holds a password, or no host key can be checked.
        """
        parts, options = split_address(url, options=_OPTIONS, example=_EXAMPLE)
        if not parts.username or not parts.hostname or len(parts.path) < 2:
            raise ConfigError("The store's address lacks a user, a host or a folder", todo=_EXAMPLE)
        host_key, known_hosts = options.get("host_key", ""), _known_hosts(options)
        if host_key and not _FINGERPRINT.fullmatch(host_key):
            raise ConfigError("The store's host_key is no SHA256 fingerprint", todo=_EXAMPLE)
        if not host_key and not known_hosts.is_file():
            raise ConfigError(
                f"Nothing says which host key the store {parts.hostname} has ({known_hosts} is not there)",
                kept="It was not called",
                todo="ask its operator for the fingerprint and write &host_key=SHA256:... into the address",
            )
        key = Path(options.get("key", "~/.ssh/id_ed25519")).expanduser()
        if not key.is_file():
            raise ConfigError(f"The key {key} for the store is not there", todo="make one with ssh-keygen -t ed25519")
        return cls(
            user=unquote(parts.username),
            host=parts.hostname,
            port=port_of(parts.netloc, default=22, example=_EXAMPLE),
            root=unquote(parts.path).rstrip("/"),
            key=key,
            host_key=host_key,
            known_hosts=None if host_key else known_hosts,
        )


_EXAMPLE = "write it like sftp://user@host:22/folder?host_key=SHA256:...&key=/path/to/key"


def _known_hosts(options: dict[str, str]) -> Path:
    return Path(options.get("known_hosts", "~/.ssh/known_hosts")).expanduser()
