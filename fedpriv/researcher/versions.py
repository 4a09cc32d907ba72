"""Whether the domains of a study run versions that understand ours."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from fedpriv.protection.versions import read_versions, spoken_versions
from fedpriv.researcher.researcher import Researcher
from fedpriv.study import Identity
from fedpriv.study.versions import MAX_VERSIONS_BYTES, VERSIONS_FILE, SpokenVersions, require_understanding
from fedpriv.transport import Store

_KEPT = "Nothing was sent"


def require_same_protocol(researcher: Researcher, cohort: Mapping[str, Identity], domains: Iterable[str]) -> None:
    """Compare what domains say of their software on the store with ours, before anything is sent to them.

    Parameters
    ----------
    domains : iterable of str
        Addresses of those that are to take part.

    Raises
    ------
    VersionError
        Naming every domain that is apart, and what to install where.
    UnknownVersionError
        If a domain says nothing, or somebody changed what it says, which it puts back while it runs.
    """
    store = Store.from_url(researcher.config.store)
    said: dict[str, SpokenVersions | None] = {}
    for email in domains:
        read = functools.partial(store.get, f"{email}/{VERSIONS_FILE}", max_bytes=MAX_VERSIONS_BYTES)
        said[email] = read_versions(read, cohort[email], kept=_KEPT)
    require_understanding(spoken_versions(researcher.config.email), said, kept=_KEPT)
