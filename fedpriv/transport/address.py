"""Addresses of stores: their parts, checked; an address with a secret in it is refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import SplitResult, unquote, urlsplit

from fedpriv.errors import ConfigError


def split_address(url: str, *, options: Collection[str], example: str) -> tuple[SplitResult, dict[str, str]]:
    """Split an address into its parts and its options by name.

    Parameters
    ----------
    options : collection of str
        The options that this kind of store has.
    example : str
        What to write instead, as one sentence.

    Raises
    ------
    ConfigError
        If it is no address, an option is unknown, doubled or empty, or there is a password in it.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"The store's address is none ({error})", todo=example) from error
    if parts.password is not None:
        raise ConfigError(
            "The store's address holds a password",
            kept="It was not called",
            todo="take it out: docs/stores.md says where the credentials of each kind of store belong",
        )
    found: dict[str, str] = {}
    for option in filter(None, parts.query.split("&")):
        name, _, value = option.partition("=")
        if name not in options or name in found or not value:
            raise ConfigError(f"The store's address has an unknown or doubled part {name[:40]!r}", todo=example)
        found[name] = unquote(value)  # a fingerprint's plus sign is no space
    if parts.fragment:
        raise ConfigError("The store's address has a part after #", todo=example)
    return parts, found


def port_of(netloc: str, *, default: int, example: str) -> int:
    """Return the port in ``user@host:port``.

    Raises
    ------
    ConfigError
        If it is none.
    """
    port = netloc.rpartition("@")[2].rpartition("]")[2].partition(":")[2]
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"The store's port {port!r} is none", todo=example)
    return int(port or default)


def check_endpoint(url: str, *, example: str) -> str:
    """Return the address of a server that speaks a cloud's protocol, if it may be called.

    *Guarantee*: what is sent there is encrypted on the way, or does not leave this machine.

    Raises
    ------
    ConfigError
        If it is not ``https://host[:port][/path]``, or ``http://`` on loopback.
    """
    parts, _ = split_address(url, options=(), example=example)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username:
        raise ConfigError("The store's endpoint is no https:// address", todo=example)
    port_of(parts.netloc, default=443, example=example)
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ConfigError(
            f"The store's server {parts.hostname} would be called over http://, which anybody on the way can change",
            kept="It was not called",
            todo="write https://; http:// is for this machine only (127.0.0.1)",
        )
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Say whether a host's name can only mean this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
