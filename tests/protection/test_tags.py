from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.files import canonical_json
from fedpriv.protection.tags import TAG_PRIME, TagKeys
from fedpriv.study import UpdateHeader

SECRET = bytes(range(32))
MEMBERS = ["a@example.org", "b@example.org", "c@example.org"]
WIDTH = 4090
HEADER = UpdateHeader(
    study="5" * 64,
    round=3,
    attempt=2,
    member="a@example.org",
    cohort="c" * 64,
    level="sealed",
    bits=10,
    weight=0.5,
    nonce="0" * 32,
    key_id="e" * 64,
    layout="b" * 64,
    scales="d" * 64,
    parameters=99,
)


def stream(key: bytes, counter: int, size: int) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(counter.to_bytes(16, "big"))).encryptor().update(bytes(size))


def expand(label: bytes, facts: object) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=label + canonical_json(facts)).derive(SECRET)


def slow_tags(header: UpdateHeader, group: int, members: list[str], first: int, words: np.ndarray) -> list[int]:
    """The definition in Python's integers: a sum of factors times words, and one pad a member."""
    shared = {k: v for k, v in header.model_dump(mode="json").items() if k not in ("member", "weight", "nonce")}
    factors = expand(b"fedpriv 2 tag factors\n", [shared, group])
    tags = []
    for block, row in enumerate(words.tolist(), first):
        raw = stream(factors, 2048 * block, 8 * 4096)
        r = [int.from_bytes(raw[8 * i : 8 * i + 8], "little") % 2**61 for i in range(len(row))]
        total = sum(factor * word for factor, word in zip(r, row, strict=True))
        for member in members:
            total += int.from_bytes(
                stream(expand(b"fedpriv 3 tag pad\n", [shared, group, member, "0" * 32]), block, 16), "little"
            )
        tags.append(total % (2**61 - 1))
    return tags


def keys(secret: bytes, header: UpdateHeader, group: int, members: list[str]) -> TagKeys:
    return TagKeys.of(secret, [header.model_copy(update={"member": member}) for member in members], group)


def words_of(seed: int, blocks: int = 2, bits: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**bits, (blocks, WIDTH), dtype=np.uint64)


def tags(words: np.ndarray, *, header=HEADER, group=0, members=MEMBERS, first=0) -> list[int]:
    return keys(SECRET, header, group, members).tags(first, words)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    group=st.integers(0, 5),
    first=st.integers(0, 10_000),
    number=st.integers(1, 3),
    extreme=st.booleans(),
)
def test_tags_are_those_of_pythons_integers(seed, group, first, number, extreme):
    words = words_of(seed)
    if extreme:
        words[:] = 2**60 - 1
    expected = slow_tags(HEADER, group, MEMBERS[:number], first, words)
    assert tags(words, group=group, members=MEMBERS[:number], first=first) == expected
    assert all(0 <= tag < TAG_PRIME for tag in expected)


def test_the_tag_of_a_sum_is_the_sum_of_the_tags():
    parts = [words_of(seed, bits=58) for seed in range(3)]
    singles = [tags(part, members=[member]) for part, member in zip(parts, MEMBERS, strict=True)]
    expected = [sum(block) % TAG_PRIME for block in zip(*singles, strict=True)]
    assert tags(sum(parts, np.zeros_like(parts[0]))) == expected


def test_any_single_changed_word_changes_the_tag_of_its_block_alone():
    words = words_of(1)
    known = tags(words)
    rng = np.random.default_rng(2)
    for position in [0, WIDTH - 1, *rng.integers(0, WIDTH, 100).tolist()]:
        for change in (1, 2**20, 2**59, int(rng.integers(1, 2**60))):
            changed = words.copy()
            changed[1, position] ^= np.uint64(change)
            assert tags(changed)[0] == known[0]
            assert tags(changed)[1] != known[1]


def test_swapped_words_and_swapped_blocks_have_other_tags():
    words = words_of(3)
    known = tags(words)
    for a, b in ((0, 1), (0, WIDTH - 1), (7, 1999)):
        swapped = words.copy()
        swapped[0, [a, b]] = swapped[0, [b, a]]
        assert tags(swapped)[0] != known[0]
    assert set(tags(words[::-1].copy())).isdisjoint(known)
    assert set(tags(words, first=1)).isdisjoint(known)


@pytest.mark.parametrize(
    "changes",
    [
        {"header": HEADER.model_copy(update={"round": 4})},
        {"header": HEADER.model_copy(update={"attempt": 3})},
        {"header": HEADER.model_copy(update={"study": "6" * 64})},
        {"header": HEADER.model_copy(update={"key_id": "6" * 64})},
        {"header": HEADER.model_copy(update={"cohort": "6" * 64})},
        {"header": HEADER.model_copy(update={"scales": "6" * 64})},
        {"header": HEADER.model_copy(update={"layout": "6" * 64})},
        {"header": HEADER.model_copy(update={"parameters": 100})},
        {"header": HEADER.model_copy(update={"nonce": "1" * 32})},
        {"group": 1},
        {"members": MEMBERS[:2]},
        {"members": [*MEMBERS[:2], "d@example.org"]},
        {"members": [*MEMBERS, MEMBERS[0]]},
    ],
)
def test_tags_are_bound_to_round_group_and_member_set(changes):
    zeros = np.zeros((2, WIDTH), np.uint64)
    for words in (words_of(4), zeros):
        assert set(tags(words, **changes)).isdisjoint(tags(words))


def test_another_secret_gives_other_tags_but_whose_header_it_is_does_not_matter():
    words = words_of(5)
    assert set(keys(bytes(32), HEADER, 0, MEMBERS).tags(0, words)).isdisjoint(tags(words))
    other = HEADER.model_copy(update={"member": "d@example.org", "weight": 0.1})
    assert tags(words, header=other) == tags(words)


def test_blocks_can_be_tagged_in_any_pieces():
    words = words_of(6, blocks=5)
    assert tags(words) == [*tags(words[:2]), *tags(words[2:], first=2)]


def test_too_many_words_are_refused():
    with pytest.raises(ValueError, match="at most 4096"):
        keys(SECRET, HEADER, 0, MEMBERS).tags(0, np.zeros((1, 5000), np.uint64)[:, :4097])
