"""How bytes travel: a store that all parties reach, syft over it, and blobs beside it."""

from fedpriv.transport.blobs import BlobChannel
from fedpriv.transport.datasite import (
    OwnerSession,
    ResearcherSession,
    SessionSettings,
    create_transport_keys,
    read_identity,
)
from fedpriv.transport.store import Store

__all__ = [
    "BlobChannel",
    "OwnerSession",
    "ResearcherSession",
    "SessionSettings",
    "Store",
    "create_transport_keys",
    "read_identity",
]
