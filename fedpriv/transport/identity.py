"""A party's transport keys, and where its signed public keys lie on the store. Imports syft only to make keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fedpriv.errors import ConfigError
from fedpriv.files import private_folder
from fedpriv.study.messages import IDENTITY_FILE
from fedpriv.transport.store import Store

MAX_IDENTITY_BYTES = 64 * 1024


def create_transport_keys(email: str, path: Path) -> str:
    """Create (or load) the syft key bundle of ``email`` at ``path`` and return its identity key (hex).

    The file is 0600; syft itself would leave it readable by everyone.

    Raises
    ------
    ConfigError
        If there is a key file of another address, or a damaged one.
    """
    from syft.sync.peers.peer_store import PeerStore

    private_folder(path.parent)
    previous = os.umask(0o077)
    try:
        peers = PeerStore.create(email=email, use_encryption=True, keys_path=path)
    except ValueError as error:
        raise ConfigError(f"The key file {path} cannot be used ({error})", todo="restore it from a backup") from error
    finally:
        os.umask(previous)
    path.chmod(0o600)
    return peers.public_key.identity_key_bytes.hex()


def show_to_all(store_url: str, email: str, files: Mapping[str, bytes]) -> None:
    """Put what a party shows to everybody, such as its signed keys, where others find it."""
    store = Store.from_url(store_url)
    for name, data in files.items():
        store.put(f"{email}/{name}", data)


def read_identity(store_url: str, email: str) -> bytes | None:
    """Return the signed identity that ``email`` published on the store, unverified, or None."""
    return Store.from_url(store_url).get(f"{email}/{IDENTITY_FILE}", max_bytes=MAX_IDENTITY_BYTES)
