"""The address of a store over SFTP, with the host key that is trusted: without one, nothing is sent there.

``sftp://user@host:port/folder?host_key=SHA256:...&key=/path/to/private_key`` pins one key by its fingerprint, as
``ssh-keygen -lf`` prints it; ``known_hosts=/path`` names a file instead. Without either, ``~/.ssh/known_hosts`` counts.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from urllib.parse import unquote

import asyncssh
from pydantic import Field

from fedpriv.errors import ConfigError
from fedpriv.study.section import Section
from fedpriv.transport.address import port_of, split_address

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_OTHERS = 0o077
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
            If a part is missing or unknown, it holds a password, no host key can be checked, or our key is readable by
            others or has a passphrase.
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
        _require_usable(key)
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


def _require_usable(key: Path) -> None:
    """Refuse a private key that others can read, or that only a person could open: a service has nobody to ask."""
    try:
        mode = stat.S_IMODE(key.stat().st_mode)
        data = key.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"The key {key} for the store cannot be read ({error.strerror})", todo="correct it"
        ) from error
    if mode & _OTHERS:
        raise ConfigError(
            f"The key {key} for the store can be read by others (mode {mode:04o})",
            kept="It was not used",
            todo=f"chmod 600 {key} if nobody else has read it, else make another one",
        )
    try:
        asyncssh.import_private_key(data)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        if "passphrase" in str(error).lower():
            raise ConfigError(
                f"The key {key} for the store has a passphrase, for which nobody is asked here; no ssh-agent is either",
                kept="It was not used",
                todo="make a key for this alone with ssh-keygen -t ed25519 -N '', and have its public half added there",
            ) from None
        raise ConfigError(
            f"The key {key} for the store is no private key that can be used ({error})",
            kept="It was not used",
            todo="give the file that ssh-keygen wrote, not the one that ends in .pub",
        ) from None
