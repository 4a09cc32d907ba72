from __future__ import annotations

import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes, hmac

from fedpriv.errors import ProtectionError, TamperedError, UntrustedError
from fedpriv.files import canonical_json
from fedpriv.protection import MaskSource, cohort_digest, combine_unlocks, pairwise_secret, updates_digest
from fedpriv.protection.bfv import BfvContext, BfvDecryptor, BfvKeys
from fedpriv.protection.bitplanes import WORDS
from fedpriv.protection.keys import key_of
from fedpriv.protection.levels import packing_of
from fedpriv.protection.masks import MaskStreams, remaining_masks
from fedpriv.protection.packed import sent_words
from fedpriv.protection.streams import stream_words
from fedpriv.study.messages import Unlock, Unlocked
from tests.protection.helpers import (
    STUDY,
    Cohort,
    Part,
    fixed_keys,
    identity_keys,
    least_p,
    make_cohort,
    with_fixed_key,
)

TENSORS = {"a": 4500, "b": 16_000}
"""More than one block of 10-bit values."""


@pytest.fixture(scope="module", params=["sealed", "masked"])
def world(request, tmp_path_factory):
    cohort = make_cohort(tmp_path_factory.mktemp(request.param), request.param, clients=4, tensors=TENSORS)
    return cohort, cohort.seal_all()


def streams_of(cohort: Cohort, member: str, members=None) -> MaskStreams:
    return cohort.masks(member, members).streams(cohort.header(member, members=members))


def sum_of(parts) -> np.ndarray:
    return sum(part.sent for part in parts)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_pairwise_masks_cancel_over_all_who_sealed_and_only_there(world, number):
    cohort, _ = world
    members = cohort.members[:number]
    streams = {member: streams_of(cohort, member, members) for member in members}
    pairs = []
    for stream in streams.values():
        own = stream_words(stream.added[0], 3, 2)
        pairs.append(stream.words(3, 2) - own)
    assert not np.add.reduce(pairs).any()
    for size in range(1, number):
        for some in itertools.combinations(pairs, size):
            assert np.count_nonzero(np.add.reduce(some)) > 2 * WORDS - 3


def test_the_self_mask_is_known_to_its_member_alone(world):
    cohort, _ = world
    seeds = {streams_of(cohort, member).added[0] for member in cohort.members}
    assert len(seeds) == len(cohort.members)
    for member in cohort.members:
        others = [streams_of(cohort, other) for other in cohort.members if other != member]
        known = {key for stream in others for key in (*stream.added, *stream.subtracted)}
        assert streams_of(cohort, member).added[0] not in known


def test_streams_are_added_and_subtracted():
    key = bytes(range(32))
    both = MaskStreams(added=(key, bytes(32)), subtracted=(key,))
    np.testing.assert_array_equal(both.words(1, 2), stream_words(bytes(32), 1, 2))


def hkdf(secret: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256, no salt and 32 bytes, from HMAC alone."""

    def mac(key: bytes, data: bytes) -> bytes:
        state = hmac.HMAC(key, hashes.SHA256())
        state.update(data)
        return state.finalize()

    return mac(mac(bytes(32), secret), info + b"\x01")


def test_pair_keys_are_derived_as_documented():
    keys = {email: identity_keys(email) for email in ("a@example.org", "b@example.org")}
    cohort = make_cohort(None, clients=2)  # only for its key and header
    cohort.keys = keys
    header = cohort.header("a@example.org")
    shared = {k: v for k, v in header.model_dump(mode="json").items() if k not in ("member", "weight", "nonce")}
    secret = pairwise_secret(keys["a@example.org"], keys["b@example.org"].identity, STUDY)
    expected = hkdf(secret, b"fedpriv 2 pair mask\n" + canonical_json([shared, sorted(keys)]))
    streams = [streams_of(cohort, member) for member in sorted(keys)]
    assert streams[0].added[1:] == (expected,) == streams[1].subtracted
    assert (streams[0].subtracted, len(streams[1].added)) == ((), 1)


@pytest.mark.parametrize(
    "change",
    [
        {"round": 2},
        {"attempt": 2},
        {"key_id": "1" * 64},
        {"layout": "1" * 64},
        {"scales": "1" * 64},
        {"parameters": 10},
        {"level": "plain"},
    ],
)
def test_no_mask_is_used_for_two_kinds_of_update(world, change):
    cohort, _ = world
    member = cohort.members[0]
    source = cohort.masks(member)
    first, other = source.streams(cohort.header(member)), source.streams(cohort.header(member, **change))
    assert not {*first.added, *first.subtracted} & {*other.added, *other.subtracted}


def test_the_weight_changes_no_mask(world):
    cohort, _ = world
    member = cohort.members[0]
    source = cohort.masks(member)
    assert source.streams(cohort.header(member)) == source.streams(cohort.header(member, weight=1.0))


def test_another_sealing_has_another_self_mask_and_the_same_pairs(world):
    """Pairs must cancel without talking about nonces; the self mask must not hide two different updates."""
    cohort, _ = world
    member = cohort.members[1]
    source = cohort.masks(member)
    first, other = source.streams(cohort.header(member)), source.streams(cohort.header(member, nonce="1" * 32))
    assert first.added[0] != other.added[0]
    assert (first.added[1:], first.subtracted) == (other.added[1:], other.subtracted)


def test_masks_of_another_member_study_or_cohort_are_refused(world):
    cohort, _ = world
    first, second = cohort.members[:2]
    for header in (
        cohort.header(second),
        cohort.header(first, study="6" * 64),
        cohort.header(first, members=cohort.members[:3]),
    ):
        with pytest.raises(ProtectionError, match="belong to another"):
            cohort.masks(first).streams(header)


def test_the_mask_that_two_members_share_is_on_the_updates_of_both(world):
    cohort, _ = world
    for low, high in itertools.combinations(sorted(cohort.members), 2):
        key = cohort.masks(high).shared_with(cohort.header(low))
        assert key in streams_of(cohort, low).added
        assert key in streams_of(cohort, high).subtracted
        assert cohort.masks(low).shared_with(cohort.header(high)) == key


def test_a_member_shares_no_mask_with_itself_or_with_another_study(world):
    cohort, _ = world
    first, second = cohort.members[:2]
    for header in (
        cohort.header(first),
        cohort.header(second).model_copy(update={"study": "6" * 64}),
        cohort.header(second).model_copy(update={"cohort": "6" * 64}),
        cohort.header(second).model_copy(update={"member": "stranger@example.org"}),
    ):
        with pytest.raises(ProtectionError, match="another member"):
            cohort.masks(first).shared_with(header)


def test_one_member_alone_or_twice_has_no_masks(world):
    cohort, _ = world
    first, second = (cohort.keys[member] for member in cohort.members[:2])
    with pytest.raises(ProtectionError, match="at least two"):
        MaskSource.of_cohort(first, [first.identity], study=STUDY)
    with pytest.raises(ProtectionError, match="same address"):
        MaskSource.of_cohort(first, [second.identity, identity_keys(second.email).identity], study=STUDY)
    with pytest.raises(ProtectionError, match="at least two"):
        MaskSource.of_cohort(first, [identity_keys(first.email).identity], study=STUDY)
    with pytest.raises(ProtectionError, match="same agreement key"):
        twin = first.identity.model_copy(update={"email": "twin@example.org"})
        MaskSource.of_cohort(first, [twin], study=STUDY)


def test_the_cohorts_digest_is_of_the_set():
    assert cohort_digest(["b@x.org", "a@x.org"]) == cohort_digest(["a@x.org", "b@x.org"])
    assert cohort_digest(["a@x.org", "b@x.org"]) != cohort_digest(["a@x.org", "b@x.org", "c@x.org"])


@pytest.mark.parametrize("number", [2, 3, 4])
def test_any_set_of_two_or_more_opens_to_its_own_sum(world, number):
    cohort, parts = world
    for members in itertools.combinations(cohort.members, number):
        chosen = [parts[member] for member in members]
        path, digest = cohort.add(chosen)
        opened = cohort.open(path, cohort.manifest(chosen, digest))
        np.testing.assert_allclose(opened.sum, sum_of(chosen), atol=2e-8)


def test_an_unlock_is_for_one_set_only(world):
    cohort, parts = world
    three, two = ([parts[member] for member in cohort.members[:n]] for n in (3, 2))
    signed = {len(some): [part.signed for part in some] for some in (three, two)}
    unlocks = {
        n: {s.header.member: cohort.masks(s.header.member).unlock(some) for s in some} for n, some in signed.items()
    }
    combine_unlocks(signed[3], unlocks[3])
    for mixed in (
        unlocks[2],
        unlocks[3] | unlocks[2],
        {**unlocks[3], cohort.members[3]: unlocks[3][cohort.members[0]]},
    ):
        with pytest.raises(UntrustedError, match=r"unlocked another set|exactly the sum's members"):
            combine_unlocks(signed[3], mixed)
    with pytest.raises(UntrustedError, match="exactly the sum's members"):
        combine_unlocks(signed[2], unlocks[3])


def test_forging_an_unlock_from_the_shares_of_another_set_opens_nothing(world):
    """All members unlocked {0, 1, 2}; the researcher cuts their shares to {0, 1} and adds pair keys it was given."""
    cohort, parts = world
    three, two = ([parts[member] for member in cohort.members[:n]] for n in (3, 2))
    signed = [part.signed for part in three]
    unlocks = {s.header.member: cohort.masks(s.header.member).unlock(signed) for s in signed}
    pair, third = cohort.members[:2], cohort.members[2]
    forged = {
        member: Unlock(
            share=unlocks[member].share,
            shares={other: share for other, share in unlocks[member].shares.items() if other in pair},
            dropped=unlocks[member].dropped,
        )
        for member in pair
    }
    path, digest = cohort.add(two)
    right = combine_unlocks(
        [part.signed for part in two],
        {member: cohort.masks(member).unlock([part.signed for part in two]) for member in pair},
    )
    assert cohort.open(path, cohort.manifest(two, digest, unlocked=right)) is not None
    wrong = combine_unlocks([part.signed for part in two], forged)
    assert wrong.self_masks != right.self_masks
    whole = combine_unlocks(signed, unlocks)
    own_seeds = Unlocked(self_masks={member: whole.self_masks[member] for member in pair}, dropped=whole.dropped)
    own_seeds = own_seeds.model_copy(
        update={"dropped": {gone: {m: keys[m] for m in pair} for gone, keys in whole.dropped.items()}}
    )
    for unlocked in (wrong, own_seeds):  # the second has the right seeds, but no pair keys with the third member
        with pytest.raises(TamperedError):
            cohort.open(path, cohort.manifest(two, digest, unlocked=unlocked))
    assert third not in own_seeds.dropped


def test_an_unlock_is_bound_to_the_very_updates(world, tmp_path):
    """One member is shown another container of the same member: the locks do not fit together."""
    cohort, parts = world
    three = [parts[member] for member in cohort.members[:3]]
    signed = [part.signed for part in three]
    other = [signed[0].model_copy(update={"container_sha256": "0" * 64}), *signed[1:]]
    assert updates_digest(signed) == updates_digest(signed[::-1]) != updates_digest(other)
    unlocks = {s.header.member: cohort.masks(s.header.member).unlock(signed) for s in signed}
    right = combine_unlocks(signed, unlocks)
    unlocks[cohort.members[1]] = cohort.masks(cohort.members[1]).unlock(other)
    wrong = combine_unlocks(signed, unlocks)
    assert not set(right.self_masks.values()) & set(wrong.self_masks.values())
    path, digest = cohort.add(three)
    with pytest.raises(TamperedError):
        cohort.open(path, cohort.manifest(three, digest, unlocked=wrong))


def test_a_member_unlocks_only_what_it_sealed_with_others(world):
    cohort, parts = world
    signed = [parts[member].signed for member in cohort.members]
    stranger = signed[1].model_copy(update={"header": signed[1].header.model_copy(update={"member": "x@example.org"})})
    source = cohort.masks(cohort.members[0])
    for updates in (signed[1:], signed[:1], [], [signed[0], stranger]):
        with pytest.raises(ProtectionError, match="sealed together"):
            source.unlock(updates)
    other_round = signed[0].model_copy(update={"header": signed[0].header.model_copy(update={"study": "6" * 64})})
    with pytest.raises(ProtectionError, match="another member, study or cohort"):
        source.unlock([other_round, *signed[1:]])


def test_the_same_updates_always_give_the_same_unlock(world):
    cohort, parts = world
    signed = [parts[member].signed for member in cohort.members]
    source = cohort.masks(cohort.members[0])
    assert source.unlock(signed) == source.unlock(signed[::-1])


def test_seeds_and_keys_of_other_members_are_refused(world):
    cohort, parts = world
    members = cohort.members[:3]
    right = cohort.unlocked([parts[member] for member in members])
    remaining_masks(members, right)
    gone = cohort.members[3]
    for unlocked in (
        Unlocked(),
        right.model_copy(update={"self_masks": dict(list(right.self_masks.items())[:2])}),
        right.model_copy(update={"self_masks": {**right.self_masks, gone: "A" * 43 + "="}}),
        right.model_copy(update={"dropped": {gone: {members[0]: right.dropped[gone][members[0]]}}}),
        right.model_copy(update={"dropped": {members[0]: right.dropped[gone]}}),
    ):
        with pytest.raises(UntrustedError, match="other members"):
            remaining_masks(members, unlocked)


def test_keys_in_another_spelling_are_refused(world):
    cohort, parts = world
    members = cohort.members
    right = cohort.unlocked([parts[member] for member in members])
    odd = right.model_copy(update={"self_masks": {**right.self_masks, members[0]: "A" * 42 + "B="}})
    with pytest.raises(UntrustedError, match="base64"):
        remaining_masks(members, odd)


def decrypted(cohort: Cohort, part: Part) -> np.ndarray:
    """Return the words of a single update as a holder of the study key sees them."""
    packing = packing_of(cohort.key.parameters, 0)
    data = np.frombuffer(part.path.read_bytes(), np.uint8)
    width = part.path.stat().st_size
    blocks = -(-cohort.size // packing.width)
    row = 512 * packing.sent_bits
    words = sent_words(packing, data[width - blocks * row :].reshape(blocks, row))
    if not packing.prime:
        return words
    keys = BfvKeys.of(cohort.key.secrets["group-0"], [part.signed.header], 0)
    return BfvDecryptor(BfvContext(packing.plain_bits, packing.prime), keys).decrypt_sum(0, words)


def clear_words(cohort: Cohort, part: Part) -> np.ndarray:
    """Return the value words of an update before masking, from its values and what it left out."""
    packing = packing_of(cohort.key.parameters, 0)
    digits = np.rint(part.sent / cohort.scales[0] * packing.half).astype(np.int64) + packing.half
    return packing.pack(digits.astype(np.uint32))


@pytest.mark.parametrize("level", ["sealed", "masked"])
def test_a_single_update_is_uniform_to_a_key_holder(tmp_path, level):
    cohort = make_cohort(tmp_path, level, clients=3, tensors=TENSORS, keys=fixed_keys)
    limit = 1e-7  # the study key is another each time
    if level == "masked":
        cohort, limit = with_fixed_key(cohort), 1e-4
    member = cohort.members[0]
    packing = packing_of(cohort.key.parameters, 0)
    part = cohort.seal(member, np.zeros(cohort.size, np.float32))
    words = decrypted(cohort, part)
    assert least_p(words.reshape(-1), packing.plain_bits) > limit
    masks = streams_of(cohort, member).words(0, len(words))
    bare = (words - masks) & np.uint64(2**packing.plain_bits - 1)
    np.testing.assert_array_equal(bare[:, : packing.value_words], clear_words(cohort, part))
    assert least_p(bare.reshape(-1), packing.plain_bits) < 1e-100


@pytest.mark.parametrize("level", ["sealed", "masked"])
def test_a_dropped_members_late_update_stays_unreadable(tmp_path, level):
    """The attacker has the study key, all containers, the unlocks of all survivors, and what follows from them."""
    cohort = make_cohort(tmp_path, level, clients=4, tensors=TENSORS, keys=fixed_keys)
    limit = 1e-7
    if level == "masked":
        cohort, limit = with_fixed_key(cohort), 1e-4
    parts = cohort.seal_all()
    *survivors, late = cohort.members
    chosen = [parts[member] for member in survivors]
    unlocked = cohort.unlocked(chosen)
    path, digest = cohort.add(chosen)
    np.testing.assert_allclose(
        cohort.open(path, cohort.manifest(chosen, digest, unlocked=unlocked)).sum, sum_of(chosen), atol=2e-8
    )

    packing = packing_of(cohort.key.parameters, 0)
    modulus = np.uint64(2**packing.plain_bits - 1)
    words, true = decrypted(cohort, parts[late]), clear_words(cohort, parts[late])
    known = {member: key_of(key) for member, key in unlocked.dropped[late].items()}
    for member, key in known.items():
        words = words - stream_words(key, 0, len(words)) if late < member else words + stream_words(key, 0, len(words))
    words &= modulus
    assert least_p(words.reshape(-1), packing.plain_bits) > limit
    assert np.count_nonzero(words[:, : packing.value_words] == true) < 3
    for member in survivors:  # nor does any seed that was released help
        guess = (words - stream_words(key_of(unlocked.self_masks[member]), 0, len(words))) & modulus
        assert np.count_nonzero(guess[:, : packing.value_words] == true) < 3

    seed = streams_of(cohort, late).added[0]
    bare = (words - stream_words(seed, 0, len(words))) & modulus
    np.testing.assert_array_equal(bare[:, : packing.value_words], true)
    assert (bare[:, packing.value_words] == 1).all()


def test_the_sum_with_a_late_update_in_it_does_not_open(world):
    cohort, parts = world
    everyone = [parts[member] for member in cohort.members]
    survivors = everyone[:3]
    unlocked = cohort.unlocked(survivors)
    path, digest = cohort.add(everyone)
    with pytest.raises(UntrustedError, match="other members"):
        cohort.open(path, cohort.manifest(everyone, digest, unlocked=unlocked))
    padded = {**unlocked.self_masks, cohort.members[3]: "A" * 43 + "="}
    with pytest.raises(TamperedError):
        cohort.open(path, cohort.manifest(everyone, digest, unlocked=Unlocked(self_masks=padded)))
