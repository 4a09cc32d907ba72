from __future__ import annotations

import pytest

from fedpriv.errors import SignatureError, UntrustedError
from fedpriv.protection import fingerprint, parse_identity, signed_identity
from tests.protection.helpers import identity_keys

ANNA = identity_keys("anna@example.org")


def test_pinned_keys_are_taken():
    assert parse_identity(signed_identity(ANNA), "anna@example.org", ANNA.fingerprint) == ANNA.identity


def test_other_keys_are_refused():
    impostor = identity_keys("anna@example.org")
    for data, email, pinned in (
        (signed_identity(impostor), "anna@example.org", ANNA.fingerprint),
        (signed_identity(ANNA), "ben@example.org", ANNA.fingerprint),
        (signed_identity(ANNA), "anna@example.org", fingerprint(impostor.identity)),
    ):
        with pytest.raises(SignatureError):
            parse_identity(data, email, pinned)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", signed_identity(ANNA)[:-3]])
def test_malformed_keys_are_refused(data):
    with pytest.raises(UntrustedError):
        parse_identity(data, "anna@example.org", ANNA.fingerprint)
