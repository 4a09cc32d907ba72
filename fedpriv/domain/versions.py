"""Whether the parties of a ticket run versions that understand ours, asked once a party while the service runs."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field

from fedpriv.protection import IdentityKeys
from fedpriv.protection.versions import read_versions, spoken_versions
from fedpriv.study import Identity
from fedpriv.study.versions import MAX_VERSIONS_BYTES, VERSIONS_FILE, require_understanding
from fedpriv.transport import Store


@dataclass(kw_only=True)
class VersionCheck:
    """Reads what other parties say of their software on the store.

    Whoever changes a version starts again, and asks all others then: so no change goes unnoticed.

    Parameters
    ----------
    keys : IdentityKeys
        Ours.
    store_url : str
        The store that all parties reach.
    """

    keys: IdentityKeys
    store_url: str
    _understood: set[str] = field(default_factory=set)

    def require(self, parties: Iterable[Identity], *, kept: str, again: bool = False) -> None:
        """Refuse to work with parties that speak another protocol.

        Parameters
        ----------
        again : bool
            Ask also those that were understood before: they may have changed since.

        Raises
        ------
        VersionError
            Naming every party that is apart, and what to install where.
        UnknownVersionError
            If a party says nothing, or somebody changed what it says, which it puts back while it runs.
        TransportError
            If the store cannot be reached.
        """
        known = {self.keys.email} if again else {self.keys.email, *self._understood}
        asked = {party.email: party for party in parties if party.email not in known}
        if not asked:
            return
        store = Store.from_url(self.store_url)
        said = {}
        for email, identity in asked.items():
            read = functools.partial(store.get, f"{email}/{VERSIONS_FILE}", max_bytes=MAX_VERSIONS_BYTES)
            said[email] = read_versions(read, identity, kept=kept)
        self._understood -= set(asked)
        require_understanding(spoken_versions(self.keys.email), said, kept=kept)
        self._understood |= set(asked)
