from __future__ import annotations

import dataclasses
import hashlib
import os

import numpy as np
import pytest

from fedpriv.errors import ContainerError, TamperedError
from fedpriv.protection.bfv import BfvKeys
from fedpriv.protection.bitplanes import WORDS, pack_words, unpack_words
from fedpriv.protection.masks import MaskStreams
from fedpriv.protection.packed import PackedAdder, PackedKeys, PackedOpener, PackedSealer, PackedShape, sent_words
from fedpriv.protection.packing import Packing, plan_packing
from fedpriv.protection.streams import stream_words
from fedpriv.protection.tags import TagKeys

FACTORS = b"f" * 32


def key(*words: object) -> bytes:
    return hashlib.sha256(repr(words).encode()).digest()


class Sum:
    """``clients`` members with self masks only, and the parties that need their secrets."""

    def __init__(self, bits: int, clients: int, security: str | None) -> None:
        self.packing = plan_packing(bits=bits, clients=clients, security=security)
        self.clients = clients
        self.secret = os.urandom(32) if security else b""

    def sealer(self, member: int, seed=(3,)) -> PackedSealer:
        return PackedSealer(self.packing, self._keys([member]), (*seed, member))

    def opener(self, clients: int | None = None) -> PackedOpener:
        clients = clients or self.clients
        return PackedOpener(self.packing, self._keys(range(clients)), clients)

    def _keys(self, members) -> PackedKeys:
        masks = MaskStreams(added=tuple(key("mask", m) for m in members), subtracted=())
        tags = TagKeys(factors=FACTORS, pads=tuple(key("pad", m) for m in members))
        bfv = None
        if self.secret:
            bfv = BfvKeys(common=key("common"), secrets=tuple(key(self.secret, m) for m in members))
        return PackedKeys(bfv=bfv, masks=masks, offset=5, tags=tags)


def digits_of(packing: Packing, values: np.ndarray, residual: np.ndarray) -> np.ndarray:
    levels = (values.astype(np.float64) - residual) * packing.half
    assert np.abs(levels - np.rint(levels)).max() < 0.02  # float32 at 16 bits
    return (np.rint(levels) + packing.half).astype(np.int64)


@pytest.mark.parametrize("security", ["tc192", "tc256", None])
@pytest.mark.parametrize(("bits", "clients"), [(4, 2), (10, 4), (16, 3), (8, 16)])
def test_the_opened_sum_is_the_integer_sum_of_the_digits(bits, clients, security):
    world = Sum(bits, clients, security)
    number = world.packing.width + 7
    rng = np.random.default_rng(bits)
    rows, total = [], np.zeros(number, np.int64)
    for member in range(clients):
        values = rng.uniform(-1.3, 1.3, number).astype(np.float32)
        sealed = world.sealer(member).seal(2, values)
        assert sealed.residual is not None
        rows.append(sealed.rows)
        total += digits_of(world.packing, values, sealed.residual)
    summed = PackedAdder(world.packing).add(rows)
    assert summed.shape == (2, PackedShape(world.packing).sum_row_bytes(clients))
    np.testing.assert_array_equal(world.opener().open_sums(2, summed, number), total)
    np.testing.assert_allclose(
        world.opener().open(2, summed, number),
        (total - world.packing.half * clients) / world.packing.half,
        rtol=1e-14,
    )


@pytest.mark.parametrize(
    ("bits", "clients", "security"),
    [(4, 64, "tc192"), (10, 64, "tc192"), (16, 64, "tc256"), (10, 4, "tc192"), (16, 2, None), (4, 64, None)],
)
@pytest.mark.parametrize("extreme", [1.0, -1.0])
def test_the_worst_case_is_exact(bits, clients, security, extreme):
    world = Sum(bits, clients, security)
    values = np.full(world.packing.width, extreme, np.float32)
    parts = [world.sealer(member).seal(0, values) for member in range(clients)]
    expected = sum(digits_of(world.packing, values, part.residual) for part in parts)
    assert np.median(expected) == (2 * world.packing.half * clients if extreme > 0 else 0)
    summed = PackedAdder(world.packing).add(part.rows for part in parts)
    np.testing.assert_array_equal(world.opener().open_sums(0, summed, values.size), expected)


def test_words_are_values_count_and_tag_under_the_masks():
    world = Sum(10, 4, None)
    packing = world.packing
    values = np.full(packing.width, 1, np.float32)
    sealed = world.sealer(0).seal(2, values)
    words = sent_words(packing, sealed.rows)
    clear = (words - stream_words(key("mask", 0), 5 + 2, 1)) % np.uint64(2**packing.plain_bits)
    full = sum(2 * packing.half * packing.radix**place for place in range(packing.digits))
    assert np.unique(clear[0, : packing.value_words]).tolist() == [full]
    assert clear[0, packing.value_words] == 1
    limbs = clear[0, packing.tagged :].tolist()
    assert len(limbs) == packing.limbs
    assert all(limb < 2**packing.limb_bits for limb in limbs)
    tag = sum(limb << packing.limb_bits * place for place, limb in enumerate(limbs))
    assert [tag] == TagKeys(factors=FACTORS, pads=(key("pad", 0),)).tags(2, clear[:, : packing.tagged])


def test_fewer_members_than_the_plan_open_too():
    world = Sum(10, 8, "tc192")
    values = np.linspace(-1, 1, 100, dtype=np.float32)
    rows = [world.sealer(member).seal(0, values).rows for member in range(3)]
    opened = world.opener(3).open(0, PackedAdder(world.packing).add(rows), 100)
    np.testing.assert_allclose(opened, 3 * values, atol=3 / world.packing.half)


@pytest.fixture(scope="module")
def sealed():
    world = Sum(10, 3, "tc192")
    values = np.zeros(2 * world.packing.width, np.float32)
    return world, [world.sealer(member).seal(0, values).rows for member in range(3)]


def test_coefficients_up_to_the_prime_are_taken_and_none_beyond(sealed):
    world, rows = sealed
    packing = world.packing
    edge = (packing.prime - 1) >> packing.dropped_bits

    def with_word(value: int) -> np.ndarray:
        words = unpack_words(rows[0], packing.sent_bits)
        words[1, 17] = value
        return pack_words(words, packing.sent_bits)

    taken = sent_words(packing, with_word(edge))
    assert int(taken[1, 17]) >> packing.dropped_bits == edge
    assert int(taken.max()) < packing.prime
    for value in (edge + 1, 2**packing.sent_bits - 1):
        with pytest.raises(ContainerError, match="out of range"):
            PackedAdder(packing).add([with_word(value), *rows[1:]])


@pytest.mark.parametrize(
    "change", [lambda r: r[:, :-1], lambda r: np.hstack([r, r]), lambda r: r[0], lambda r: r[:, :0]]
)
def test_rows_of_a_wrong_size_are_refused(sealed, change):
    world, rows = sealed
    with pytest.raises(ContainerError, match="wrong size"):
        PackedAdder(world.packing).add([change(rows[0])])
    with pytest.raises(ContainerError, match="wrong size"):
        world.opener().open(0, change(rows[0]), 10)


def test_nothing_is_not_added(sealed):
    with pytest.raises(ContainerError, match="no update"):
        PackedAdder(sealed[0].packing).add([])


@pytest.mark.parametrize("change", ["order of blocks", "place of blocks", "one too few", "another key", "no masks"])
def test_sums_of_anything_else_are_not_opened(sealed, change):
    world, rows = sealed
    opener, first = world.opener(), 0
    summed = PackedAdder(world.packing).add(rows)
    number = 2 * world.packing.width
    world.opener().open(0, summed, number)
    match change:
        case "order of blocks":
            summed = summed[::-1]
        case "place of blocks":
            first = 1
        case "one too few":
            opener, summed = world.opener(2), PackedAdder(world.packing).add(rows[1:])
        case "another key":
            opener = Sum(10, 3, "tc192").opener()
        case "no masks":
            keys = world._keys(range(3))
            bare = dataclasses.replace(keys, masks=MaskStreams(added=(), subtracted=()))
            opener = PackedOpener(world.packing, bare, 3)
    with pytest.raises(TamperedError):
        opener.open(first, summed, number)


def test_a_row_has_only_the_bytes_that_it_needs(sealed):
    world, rows = sealed
    assert rows[0].shape[1] == PackedShape(world.packing).row_bytes == WORDS // 8 * world.packing.sent_bits
    assert PackedShape(world.packing).sum_row_bytes(3) == rows[0].shape[1]
