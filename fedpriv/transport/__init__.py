"""How bytes travel: a store that all parties reach, syft over it, and blobs beside it.

The sessions are imported when they are first used: syft takes more than a second, and most commands do not need it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedpriv.transport.choice import TransportChoice
from fedpriv.transport.identity import create_transport_keys, read_identity, show_to_all
from fedpriv.transport.store import Store, checked_address, require_whole

if TYPE_CHECKING:
    from fedpriv.transport.blobs import BlobChannel
    from fedpriv.transport.owner_session import OwnerSession
    from fedpriv.transport.researcher_session import ResearcherSession
    from fedpriv.transport.session_settings import SessionSettings

__all__ = [
    "BlobChannel",
    "OwnerSession",
    "ResearcherSession",
    "SessionSettings",
    "Store",
    "TransportChoice",
    "checked_address",
    "create_transport_keys",
    "read_identity",
    "require_whole",
    "show_to_all",
]

_LATER = {
    "BlobChannel": "fedpriv.transport.blobs",
    "OwnerSession": "fedpriv.transport.owner_session",
    "ResearcherSession": "fedpriv.transport.researcher_session",
    "SessionSettings": "fedpriv.transport.session_settings",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
