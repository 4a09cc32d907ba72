"""What a party shows to everybody on the store, below its own prefix."""

from __future__ import annotations

from fedpriv.protection.identities import signed_identity
from fedpriv.protection.keys import IdentityKeys
from fedpriv.protection.versions import signed_versions
from fedpriv.study.messages import IDENTITY_FILE
from fedpriv.study.versions import VERSIONS_FILE


def shown_to_all(keys: IdentityKeys) -> dict[str, bytes]:
    """Return the objects by name, in the order to put them in: who finds the keys looks for the versions.

    *Guarantee*: each is signed by the party. *Assumption*: readers pinned its fingerprint; a store can hide them, or
    show older ones.
    """
    return {VERSIONS_FILE: signed_versions(keys), IDENTITY_FILE: signed_identity(keys)}
