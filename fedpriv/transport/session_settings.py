"""What a party's session over a store needs to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedpriv.transport.choice import TransportChoice


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """What a session needs.

    Attributes
    ----------
    email : str
        Our address.
    store_url : str
        The store that all parties reach.
    folder : Path
        Our own folder; the syft datasite and the journals lie in it.
    keys_path : Path
        The syft key bundle made by :func:`fedpriv.transport.create_transport_keys`.
    pins : Mapping[str, str]
        Peer address to its pinned transport key (hex).
    on_refusal : Callable[[str, str], None]
        Called with a peer and a reason: a message was put in quarantine, or what else it left was not used.
    transport : TransportChoice
        How we use our line.
    public : Mapping[str, bytes]
        What everybody reads of us, by its name below our prefix: whoever publishes it does so first, the session where
        the store lost or changed it.
    """

    email: str
    store_url: str
    folder: Path
    keys_path: Path
    pins: Mapping[str, str]
    on_refusal: Callable[[str, str], None] = field(default=lambda peer, reason: None)
    transport: TransportChoice = field(default_factory=TransportChoice)
    public: Mapping[str, bytes] = field(default_factory=dict)
