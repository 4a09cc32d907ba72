from __future__ import annotations

import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedpriv.errors import ProtectionError
from fedpriv.files import canonical_json
from fedpriv.protection import MaskSource, pairwise_secret
from fedpriv.study import UpdateHeader
from tests.protection.helpers import STUDY, identity_keys

MEMBERS = ["a@example.org", "b@example.org", "c@example.org", "d@example.org"]
KEYS = {email: identity_keys(email) for email in MEMBERS}


def header(member: str, **changes) -> UpdateHeader:
    values = {
        "study": STUDY,
        "round": 1,
        "attempt": 1,
        "member": member,
        "level": "sealed",
        "weight": 0.25,
        "key_id": "",
        "layout": "b" * 64,
        "parameters": 9,
    }
    return UpdateHeader(**(values | changes))


def source(member: str, members=MEMBERS) -> MaskSource:
    return MaskSource.of_cohort(KEYS[member], [KEYS[email].identity for email in members], study=STUDY)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_masks_cancel_in_the_whole_cohort_only(number):
    members = MEMBERS[:number]
    streams = [source(member, members).stream(header(member)) for member in members]
    for piece in (5, 4096):
        masks = [stream.next(piece) for stream in streams]
        assert not np.add.reduce(masks).any()
        for size in range(1, number):
            for part in itertools.combinations(masks, size):
                assert np.count_nonzero(np.add.reduce(part)) > piece - 2


def test_weights_may_differ_but_nothing_else():
    first = source("a@example.org").stream(header("a@example.org")).next(8)
    weighted = source("a@example.org").stream(header("a@example.org", weight=0.5)).next(8)
    np.testing.assert_array_equal(first, weighted)
    for change in (
        {"round": 2},
        {"attempt": 2},
        {"key_id": "1" * 64},
        {"layout": "1" * 64},
        {"parameters": 10},
    ):
        assert not np.any(first == source("a@example.org").stream(header("a@example.org", **change)).next(8))
    assert not np.any(first == source("a@example.org", MEMBERS[:3]).stream(header("a@example.org")).next(8))


def test_a_pair_of_two_against_independent_hkdf():
    """HKDF written out (RFC 5869) and AES-CTR as AES-ECB of a counter."""
    mine, other = KEYS["a@example.org"], KEYS["b@example.org"]
    members = ["a@example.org", "b@example.org"]
    shared = header("a@example.org").model_dump(mode="json", exclude={"member", "weight"})

    def mac(key: bytes, data: bytes) -> bytes:
        digest = hmac.HMAC(key, hashes.SHA256())
        digest.update(data)
        return digest.finalize()

    info = b"fedpriv 1 mask\n" + canonical_json([shared, members, members])
    key = mac(mac(bytes(32), pairwise_secret(mine, other.identity, STUDY)), info + b"\x01")
    ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - the oracle of CTR
    blocks = b"".join(ecb.update(counter.to_bytes(16, "big")) for counter in range(4))
    expected = [int.from_bytes(blocks[start : start + 8], "little") for start in range(0, 64, 8)]
    assert source("a@example.org", members).stream(header("a@example.org")).next(8).tolist() == expected
    negative = source("b@example.org", members).stream(header("b@example.org")).next(8).tolist()
    assert negative == [-value % 2**64 for value in expected]


def test_masks_look_uniform():
    masks = source("a@example.org").stream(header("a@example.org")).next(64_000)
    for shift in (0, 30, 56):
        counts = np.bincount(((masks >> np.uint64(shift)) & np.uint64(255)).astype(int), minlength=256)
        chi2 = float(((counts - 250) ** 2 / 250).sum())
        assert 255 - 6 * 22.6 < chi2 < 255 + 6 * 22.6


def test_wrong_members_are_refused():
    with pytest.raises(ProtectionError):
        source("a@example.org", ["a@example.org"])
    with pytest.raises(ProtectionError):
        source("a@example.org").stream(header("b@example.org"))
    with pytest.raises(ProtectionError):
        source("a@example.org").stream(header("a@example.org", study="6" * 64))
    twice = [KEYS["b@example.org"].identity, identity_keys("b@example.org").identity]
    with pytest.raises(ProtectionError):
        MaskSource.of_cohort(KEYS["a@example.org"], twice, study=STUDY)
    impostor = identity_keys("a@example.org").identity
    with pytest.raises(ProtectionError):
        MaskSource.of_cohort(KEYS["a@example.org"], [impostor], study=STUDY)
