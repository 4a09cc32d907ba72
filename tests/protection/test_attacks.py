"""Attacks on purpose: every one ends in an error that has a name, and nothing is added or opened."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fedpriv.errors import ContainerError, ProtectionError, SignatureError, TamperedError, UntrustedError
from fedpriv.files import file_sha256
from fedpriv.protection import StudyKey, opener_for, sign_update, verify_manifest
from fedpriv.protection.bfv import DEGREE, BfvContext, BfvDecryptor, BfvEncryptor, BfvKeys, add_modular
from fedpriv.protection.bitplanes import WORDS, pack_words
from fedpriv.protection.container import Container, new_container
from fedpriv.protection.headers import aggregate_header
from fedpriv.protection.levels import packing_of, shape_of
from fedpriv.protection.packed import sent_words
from fedpriv.protection.packing import PRIMES
from fedpriv.protection.streams import stream_words, ternary_polynomial, uniform_polynomials
from fedpriv.protection.tags import TAG_PRIME, TagKeys
from fedpriv.study import AggregateManifest
from fedpriv.study.messages import Unlocked
from fedpriv.study.protection_choice import LevelRule
from tests.protection.helpers import (
    STUDY,
    Cohort,
    Part,
    decrypted_raw,
    make_cohort,
    phase,
    stolen_secret,
)

RULES = (
    LevelRule(tensors=("b",), level="masked", bits=8),
    LevelRule(tensors=("c",), level="plain"),
)
TENSORS = {"a": 17_000, "b": 900, "c": 100}
"""Two sealed blocks, one masked, one plain."""

NAMED = (ContainerError, TamperedError, SignatureError, UntrustedError, ProtectionError)


@dataclasses.dataclass
class World:
    cohort: Cohort
    parts: list[Part]
    path: Path
    manifest: AggregateManifest
    sum: np.ndarray

    def opens(self, path: Path, manifest: AggregateManifest) -> np.ndarray:
        return self.opener.open(path, manifest=manifest, scales=self.cohort.scales).sum

    def __post_init__(self) -> None:
        self.opener = opener_for(self.cohort.protection, self.cohort.key, self.cohort.tensors)

    def announcing(self, path: Path, **changes) -> AggregateManifest:
        """Return the manifest of a malicious aggregator for what lies at a path."""
        return self.manifest.model_copy(update={"aggregate_sha256": file_sha256(path)} | changes)


def new_world(folder: Path) -> World:
    cohort = make_cohort(folder, clients=3, tensors=TENSORS, rules=RULES)
    parts = list(cohort.seal_all().values())
    path, digest = cohort.add(parts)
    manifest = cohort.manifest(parts, digest)
    return World(cohort, parts, path, manifest, cohort.open(path, manifest).sum)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return new_world(tmp_path_factory.mktemp("attacks"))


def rows_of(path: Path) -> dict[str, np.ndarray]:
    container = Container(path)
    return {name: container.rows(name, 0, shape[0]).copy() for name, (_, shape) in container._arrays.items()}


def rewrite(path: Path, target: Path, change: Callable[[dict[str, np.ndarray]], object], header=None) -> Path:
    """Write a container like the one at ``path`` with changed rows or header, as a malicious aggregator would."""
    rows = rows_of(path)
    change(rows)
    with new_container(target, header or Container(path).header, {name: r.shape for name, r in rows.items()}) as draft:
        for name, data in rows.items():
            draft.write(name, 0, data)
    return target


# Mutated files


def head_end(data: bytes) -> int:
    return 8 + struct.unpack_from("<Q", data)[0]


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def lying_heads(data: bytes) -> Iterator[bytes]:
    """Yield the file with heads of other JSON types, huge sizes and other versions; all else as it was."""
    end = head_end(data)
    head, body = json.loads(data[8:end]), data[end:]
    strange = (None, True, False, 0, -1, 1.5, 2**63, 2**70, 1e300, "", "x", [], {}, [[]], {"a": {}}, "9" * 300)

    def file(changed: object) -> bytes:
        text = json.dumps(changed, separators=(",", ":")).encode()
        text = text.ljust(-(-len(text) // 8) * 8)
        return struct.pack("<Q", len(text)) + text + body

    def copied() -> dict:
        return json.loads(json.dumps(head))

    for value in strange:
        yield file(value)
        for name in head:
            yield file(head | {name: value})
            for key in head[name]:
                changed = copied()
                changed[name][key] = value
                yield file(changed)
        for name in list(head)[1:]:
            for key in ("shape", "data_offsets"):
                for place in (0, 1):
                    changed = copied()
                    changed[name][key][place] = value
                    if changed != head:
                        yield file(changed)
        inner = json.loads(head["__metadata__"]["header"])
        for key in inner:
            if inner[key] != value:
                changed = copied()
                changed["__metadata__"]["header"] = json.dumps(
                    inner | {key: value}, separators=(",", ":"), sort_keys=True
                )
                yield file(changed)
    for version in ("1", "3", "5", "4 ", "٤"):
        changed = copied()
        changed["__metadata__"]["version"] = version
        yield file(changed)
    for size in (0, 1, end - 9, end - 7, 2**20, 2**32, 2**63, 2**64 - 1):
        yield struct.pack("<Q", size) + data[8:]


def blunt(data: bytes, number: int, rng: random.Random) -> Iterator[bytes]:
    """Yield files that were cut, extended, zeroed, flipped in many places, or whose blocks were exchanged."""
    end, block = head_end(data), 20_000
    for index in range(number):
        match index % 6:
            case 0:
                yield data[: rng.randrange(len(data))]
            case 1:
                yield data + rng.randbytes(rng.choice([1, 8, 64, block]))
            case 2:
                start = rng.randrange(end, len(data) - 2000)
                yield data[:start] + bytes(2000) + data[start + 2000 :]
            case 3:
                changed = bytearray(data)
                for _ in range(rng.randrange(2, 20)):
                    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                yield bytes(changed)
            case 4:
                a = rng.randrange(end, len(data) - 2 * block)
                b = a + block
                yield data[:a] + data[b : b + block] + data[a:b] + data[b + block :]
            case 5:
                a = rng.randrange(end, len(data) - 20_064)
                b = a + rng.randrange(64, 20_000)
                yield data[:b] + data[a : a + 64] + data[b + 64 :]


class Attacker:
    """Offers files to the adder and the opener, and counts how that ends: without an error, the test fails.

    Under a digest that is not honest, the file is signed or announced again, by a malicious member or aggregator.
    """

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.ends: collections.Counter[str] = collections.Counter()

    def add(self, data: bytes, *, honest: bool, name: str = "never") -> tuple[Part, Path, str]:
        """Offer an update in place of the first member's."""
        path, first = self.folder / "update", self.world.parts[0]
        path.write_bytes(data)
        signed = first.signed
        if not honest:
            keys = self.world.cohort.keys[signed.header.member]
            signed = sign_update(keys, signed.header, hashlib.sha256(data).hexdigest(), max(1, len(data)))
        part = dataclasses.replace(first, signed=signed, path=path)
        return part, *self.world.cohort.add([part, *self.world.parts[1:]], name=name)

    def open(self, data: bytes, *, honest: bool) -> np.ndarray:
        """Offer an aggregate."""
        path = self.folder / "sum"
        path.write_bytes(data)
        return self.world.opens(path, self.world.manifest if honest else self.world.announcing(path))

    def add_and_open(self, data: bytes, *, honest: bool) -> np.ndarray:
        """Offer an update, and what the adder makes of it if it takes it."""
        part, path, digest = self.add(data, honest=honest, name="mutated")
        updates = (part.signed, *self.world.manifest.updates[1:])
        return self.world.opens(path, self.world.announcing(path, updates=updates, aggregate_sha256=digest))

    def refused(self, step: Callable[..., object], data: bytes, *, honest: bool) -> None:
        """Offer a file that must be refused."""
        with pytest.raises(NAMED) as caught:
            step(data, honest=honest)
        self.ends[type(caught.value).__name__] += 1


@pytest.mark.parametrize("share", [0.25, pytest.param(1.0, marks=pytest.mark.nightly)], ids=["some", "ten thousand"])
def test_mutated_containers_end_in_an_error_with_a_name(world, tmp_path, share):
    """Two files, an update at the adder and an aggregate at the opener; under the digest that was signed, and under a
    new one, where only structure, ranges and tags are left to catch it."""
    rng, attacker = random.Random(11), Attacker(world, tmp_path)
    files = (world.parts[0].path.read_bytes(), attacker.add), (world.path.read_bytes(), attacker.open)
    for data, step in files:
        lies = list(lying_heads(data))
        for _ in range(int(1800 * share)):
            attacker.refused(step, flipped(data, rng.randrange(len(data)), rng.randrange(8)), honest=True)
        for mutant in (*blunt(data, int(600 * share), rng), *lies):
            if mutant != data:  # zeros in place of zeros
                attacker.refused(step, mutant, honest=True)
        places = range(head_end(data))  # every byte of the head
        for place in rng.sample(places, int(len(places) * share)):
            attacker.refused(step, flipped(data, place, rng.randrange(8)), honest=False)
        for mutant in (*lies, *(mutant for mutant in blunt(data, int(600 * share), rng) if len(mutant) != len(data))):
            attacker.refused(step, mutant, honest=False)
    assert not (world.cohort.folder / "never").exists()
    harmless = sum(
        blocks_mutated(attacker, data, rng, step, int(250 * share))
        for (data, _), step in zip(files, (attacker.add_and_open, attacker.open), strict=True)
    )
    np.testing.assert_array_equal(world.opens(world.path, world.manifest), world.sum)
    assert attacker.ends.total() >= 10_000 * share
    assert attacker.ends["TamperedError"] > 500 * share
    assert attacker.ends["ContainerError"] > 9_000 * share
    assert harmless < 40 * share  # of 500: they fell into the lowest bits that are sent, see the next test


def blocks_mutated(
    attacker: Attacker, data: bytes, rng: random.Random, step: Callable[..., np.ndarray], count: int
) -> int:
    """Mutate sealed and masked blocks (level plain protects nothing); return how many mutants changed nothing."""
    end = len(data) - shape_of(attacker.world.cohort.key.parameters, 2).row_bytes
    for mutant in blunt(data[:end], 150, rng):
        if len(mutant) == end and mutant != data[:end]:
            attacker.refused(step, mutant + data[end:], honest=False)
    harmless = 0
    for _ in range(count):
        mutant = flipped(data, rng.randrange(head_end(data), end), rng.randrange(8))
        try:
            total = step(mutant, honest=False)
        except NAMED as error:
            attacker.ends[type(error).__name__] += 1
        else:
            np.testing.assert_array_equal(total, attacker.world.sum)
            harmless += 1
    return harmless


def test_a_bit_in_the_noise_changes_nothing_and_every_other_one_is_found(world, tmp_path):
    """A ciphertext is malleable within its noise; what opens is the right sum, or nothing."""
    packing = packing_of(world.cohort.key.parameters, 0)
    outcome = {}
    for bit in range(packing.sent_bits):

        def change(rows, bit=bit):
            words = sent_words(packing, rows["group-0"]) >> np.uint64(packing.dropped_bits)
            words[1, 77] ^= np.uint64(1 << bit)
            rows["group-0"] = pack_words(words, packing.sent_bits)

        path = rewrite(world.path, tmp_path / "x", change)
        try:
            outcome[bit] = bool((world.opens(path, world.announcing(path)) == world.sum).all())
        except (TamperedError, ContainerError):
            outcome[bit] = None
    assert False not in outcome.values()
    # From one end of the noise's room to the other is less than a step of the plain modulus, q / 2^m.
    room = {bit for bit in outcome if 2 ** (packing.dropped_bits + bit) < packing.prime / 2**packing.plain_bits}
    assert {bit for bit, same in outcome.items() if same} <= room
    assert len(room) < 4


def test_nothing_is_decrypted_before_the_form_of_every_block_was_checked(world, tmp_path, monkeypatch):
    decrypted = []
    monkeypatch.setattr(BfvDecryptor, "decrypt_sum", lambda *arguments: decrypted.append(arguments))

    def out_of_range(rows):
        rows["group-0"][-1] = 255

    path = rewrite(world.path, tmp_path / "x", out_of_range)
    with pytest.raises(ContainerError, match="out of range"):
        world.opens(path, world.announcing(path))
    assert decrypted == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_plain_group_with_values_that_are_not_finite_is_refused(world, tmp_path, value):
    def change(rows):
        rows["group-2"].view("<f4")[0, 3] = value

    path = rewrite(world.path, tmp_path / "x", change)
    with pytest.raises(ContainerError, match="not finite"):
        world.opens(path, world.announcing(path))


# Who is in the sum


def verify(world: World, manifest: AggregateManifest, **changes) -> None:
    expected = {"study": STUDY, "round": 1, "attempt": 1, "expected_members": world.cohort.members} | changes
    verify_manifest(manifest, world.cohort.identities, **expected)


def test_the_honest_manifest_is_accepted(world):
    verify(world, world.manifest, weights=dict.fromkeys(world.cohort.members, 1 / 3))
    np.testing.assert_array_equal(world.opens(world.path, world.manifest), world.sum)


def test_the_sum_of_an_old_round_is_not_opened_again(world, tmp_path):
    """Replayed as it is, under a new round number, with new headers, and in a container with new headers."""
    for changes in ({"round": 2}, {"attempt": 2}):
        with pytest.raises(UntrustedError, match="not of round"):
            verify(world, world.manifest, **changes)
        renamed = world.manifest.model_copy(update=changes)
        with pytest.raises(UntrustedError, match="not of round"):
            verify(world, renamed, **changes)
        with pytest.raises(UntrustedError, match="different rounds"):
            world.opens(world.path, renamed)
        headers = [update.header.model_copy(update=changes) for update in world.manifest.updates]
        updates = tuple(
            update.model_copy(update={"header": header})
            for update, header in zip(world.manifest.updates, headers, strict=True)
        )
        forged = renamed.model_copy(update={"updates": updates})
        with pytest.raises(SignatureError):
            verify(world, forged, **changes)
        with pytest.raises(ContainerError, match="another header"):
            world.opens(world.path, forged)
        path = rewrite(world.path, tmp_path / "x", lambda rows: None, aggregate_header(headers))
        with pytest.raises(TamperedError):
            world.opens(path, forged.model_copy(update={"aggregate_sha256": file_sha256(path)}))


def test_an_update_of_an_old_round_is_not_added(world):
    old = world.parts[0]
    new = [
        world.cohort.seal(p.signed.header.member, p.update, name=f"new{i}", round=2) for i, p in enumerate(world.parts)
    ]
    world.cohort.add(new, name="honest")
    with pytest.raises(UntrustedError, match="differ in round"):
        world.cohort.add([old, *new[1:]], name="never")
    lied = dataclasses.replace(old, signed=old.signed.model_copy(update={"header": new[0].signed.header}))
    with pytest.raises(ContainerError, match="another header"):
        world.cohort.add([lied, *new[1:]], name="never")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("study", "6" * 64),
        ("key_id", "6" * 64),
        ("layout", "6" * 64),
        ("scales", "6" * 64),
        ("cohort", "6" * 64),
        ("parameters", 17_999),
        ("level", "masked"),
        ("attempt", 2),
    ],
)
def test_an_update_of_another_kind_is_neither_added_nor_opened(world, field, value):
    signed = world.parts[0].signed
    other = signed.model_copy(update={"header": signed.header.model_copy(update={field: value})})
    part = dataclasses.replace(world.parts[0], signed=other)
    with pytest.raises(UntrustedError, match=f"differ in {field.replace('_', ' ')}"):
        world.cohort.add([part, *world.parts[1:]], name="never")
    with pytest.raises(SignatureError):
        verify(world, world.manifest.model_copy(update={"updates": (other, *world.manifest.updates[1:])}))
    with pytest.raises(UntrustedError, match="differ in"):
        world.opens(world.path, world.manifest.model_copy(update={"updates": (other, *world.manifest.updates[1:])}))
    everyone = [
        dataclasses.replace(
            p, signed=p.signed.model_copy(update={"header": p.signed.header.model_copy(update={field: value})})
        )
        for p in world.parts
    ]
    with pytest.raises((ProtectionError, ContainerError)):
        world.cohort.add(everyone, name="never")
    updates = tuple(part.signed for part in everyone)
    with pytest.raises((ProtectionError, UntrustedError)):
        world.opens(world.path, world.manifest.model_copy(update={"updates": updates}))
    assert not (world.cohort.folder / "never").exists()


def test_one_member_counted_twice_is_refused(world, tmp_path):
    a, b, c = world.parts
    with pytest.raises(UntrustedError, match="twice"):
        world.cohort.add([a, a, b], name="never")
    twice = world.manifest.model_copy(update={"updates": (a.signed, a.signed, b.signed)})
    for attempt in (lambda: verify(world, twice), lambda: world.opens(world.path, twice)):
        with pytest.raises(UntrustedError, match="twice"):
            attempt()
    copied = b.signed.model_copy(update={"container_sha256": a.signed.container_sha256})
    with pytest.raises(UntrustedError, match="one container"):
        verify(world, world.manifest.model_copy(update={"updates": (a.signed, copied, c.signed)}))
    path = forged_sum(world, tmp_path, [a, a, b])
    with pytest.raises(TamperedError):
        world.opens(path, world.announcing(path))


def forged_sum(world: World, folder: Path, parts: list[Part]) -> Path:
    """Return the sum of any updates in the form of one of all members."""
    parameters = world.cohort.key.parameters
    sealed, masked = packing_of(parameters, 0), packing_of(parameters, 1)
    found = [rows_of(part.path) for part in parts]

    def change(rows):
        total = np.zeros((2, WORDS), np.uint64)
        clear = np.zeros((1, WORDS), np.uint64)
        for part in found:
            add_modular(total, sent_words(sealed, part["group-0"]), sealed.prime)
            clear += sent_words(masked, part["group-1"])
        rows["group-0"] = pack_words(total >> np.uint64(sealed.dropped_bits), sealed.sent_bits)
        rows["group-1"] = pack_words(clear, masked.sent_bits)
        rows["group-2"] = sum(part["group-2"].view("<f4") for part in found).view(np.uint8)

    return rewrite(world.path, folder / "forged", change)


def test_the_forger_of_sums_can_make_the_honest_one(world, tmp_path):
    path = forged_sum(world, tmp_path, world.parts)
    np.testing.assert_allclose(world.opens(path, world.announcing(path)), world.sum, atol=1e-8)


@pytest.mark.parametrize("group", ["group-0", "group-1"])
def test_one_member_left_out_silently_is_found(world, tmp_path, group):
    """In one group of levels alone, so that each has to find it."""
    others = {"group-0", "group-1", "group-2"} - {group}
    honest = rows_of(world.path)
    forged = forged_sum(world, tmp_path, world.parts[:2])
    path = rewrite(forged, tmp_path / "x", lambda rows: rows.update({name: honest[name] for name in others}))
    with pytest.raises(TamperedError):
        world.opens(path, world.announcing(path))


def test_a_smaller_sum_under_the_unlock_of_all_is_not_opened(world):
    two = world.parts[:2]
    path, digest = world.cohort.add(two, name="two")
    manifest = world.cohort.manifest(two, digest, unlocked=world.manifest.unlocked)
    with pytest.raises(UntrustedError, match="exactly the expected members"):
        verify(world, manifest)
    with pytest.raises(UntrustedError, match="other members"):
        world.opens(path, manifest)
    fewer = dict(list(world.manifest.unlocked.self_masks.items())[:2])
    with pytest.raises(TamperedError):  # the seeds are right; the pairwise masks with the third are still on it
        world.opens(path, manifest.model_copy(update={"unlocked": Unlocked(self_masks=fewer)}))
    with pytest.raises(ContainerError, match="another header"):  # as a sum of three
        world.opens(path, world.announcing(path))


def test_a_weight_changed_in_the_manifest_is_found(world, tmp_path):
    weights = dict.fromkeys(world.cohort.members, 1 / 3)
    first, *rest = world.manifest.updates
    changed = first.model_copy(update={"header": first.header.model_copy(update={"weight": 0.5})})
    manifest = world.manifest.model_copy(update={"updates": (changed, *rest)})
    with pytest.raises(SignatureError):
        verify(world, manifest)
    with pytest.raises(ContainerError, match="another header"):
        world.opens(world.path, manifest)
    keys = world.cohort.keys[first.header.member]
    resigned = sign_update(keys, changed.header, changed.container_sha256, changed.container_bytes)
    manifest = world.manifest.model_copy(update={"updates": (resigned, *rest)})
    with pytest.raises(UntrustedError, match="another weight"):  # the member itself took another than its ticket's
        verify(world, manifest, weights=weights)


def test_another_nonce_in_the_manifest_opens_nothing(world, tmp_path):
    first, *rest = world.manifest.updates
    header = first.header.model_copy(update={"nonce": "1" * 32})
    changed = first.model_copy(update={"header": header})
    with pytest.raises(SignatureError):
        verify(world, world.manifest.model_copy(update={"updates": (changed, *rest)}))
    keys = world.cohort.keys[header.member]  # the member itself lies
    resigned = sign_update(keys, header, changed.container_sha256, changed.container_bytes)
    manifest = world.manifest.model_copy(update={"updates": (resigned, *rest)})
    verify(world, manifest)
    with pytest.raises(TamperedError):
        world.opens(world.path, manifest)


# Chosen ciphertexts and wrong keys


@dataclasses.dataclass
class Sealing:
    """One update's encryption, for one round."""

    keys: BfvKeys
    context: BfvContext
    words: np.ndarray
    c0: np.ndarray

    @property
    def secret(self) -> np.ndarray:
        return ternary_polynomial(self.keys.secrets[0])

    @property
    def common(self) -> np.ndarray:
        return uniform_polynomials(self.keys.common, 0, 1, self.context.prime)[0]

    def opened_with(self, polynomial: np.ndarray) -> list[int]:
        """Open without SEAL, by schoolbook arithmetic."""
        prime, bits = self.context.prime, self.context.plain_bits
        found = phase(prime, self.c0, self.common, polynomial)
        return [(value * 2**bits + prime // 2) // prime % 2**bits for value in found]


def sealing(world: World, **changes) -> Sealing:
    header = world.parts[0].signed.header.model_copy(update=changes)
    keys = BfvKeys.of(world.cohort.key.secrets["group-0"], [header], 0)
    context = BfvContext(47, PRIMES["tc192"])
    words = np.random.default_rng(1).integers(0, 2**47, (1, DEGREE), dtype=np.uint64)
    return Sealing(keys, context, words[0], BfvEncryptor(context, keys).encrypt(0, words)[0])


def test_the_chosen_ciphertext_gives_away_one_sum_and_no_other(world):
    """The ciphertext (0, floor(q/t)) decrypts to the secret. That secret opens the sum it is for, and nothing else:
    not the next round, not another attempt, not another sealing of the same update."""
    one = sealing(world)
    stolen = stolen_secret(one.context, one.secret)
    np.testing.assert_array_equal(stolen, one.secret)
    assert set(np.unique(stolen)) == {-1, 0, 1}
    np.testing.assert_array_equal(decrypted_raw(one.context, one.secret, one.c0, one.common), one.words)
    assert one.opened_with(stolen) == one.words.tolist()
    for changes in ({"round": 2}, {"attempt": 2}, {"nonce": "1" * 32}, {"member": world.cohort.members[1]}):
        other = sealing(world, **changes)
        assert other.opened_with(other.secret) == other.words.tolist()
        assert np.count_nonzero(np.array(other.opened_with(stolen)) == other.words) < 3
        assert abs(np.corrcoef(stolen, other.secret)[0, 1]) < 0.1


@pytest.mark.parametrize("c0", ["floor(q/t)", "zero", "all floor(q/t)", "minus a", "a"])
def test_no_chosen_ciphertext_is_opened(world, tmp_path, c0):
    """A sum has no second polynomial that anybody could choose, and what a chosen first one opens to is not used."""
    packing = packing_of(world.cohort.key.parameters, 0)
    header = world.parts[0].signed.header

    def change(rows):
        words = np.zeros((2, WORDS), np.uint64)
        if c0 in ("a", "minus a"):
            common = BfvKeys.of(bytes(32), [header], 0).common  # public: any secret will do
            words = uniform_polynomials(common, 0, 2, packing.prime)
            words = words if c0 == "a" else np.uint64(packing.prime) - words
        elif c0 != "zero":
            words[:, : 1 if c0 == "floor(q/t)" else WORDS] = packing.prime >> packing.plain_bits
        rows["group-0"] = pack_words(words >> np.uint64(packing.dropped_bits), packing.sent_bits)

    path = rewrite(world.path, tmp_path / "x", change)
    with pytest.raises(TamperedError):
        world.opens(path, world.announcing(path))


def test_a_second_polynomial_beside_the_sum_is_refused(world, tmp_path):
    def change(rows):
        rows["group-0"] = np.hstack([rows["group-0"], np.zeros((2, 512 * 60), np.uint8)])

    path = rewrite(world.path, tmp_path / "x", change)
    with pytest.raises(ContainerError, match="holds group-0 as"):
        world.opens(path, world.announcing(path))


def test_another_key_of_equal_parameters_opens_nothing(world, tmp_path):
    other = new_world(tmp_path).cohort.key
    key = world.cohort.key
    with pytest.raises(ProtectionError, match="another study key"):
        opener_for(world.cohort.protection, other, TENSORS).open(
            world.path, manifest=world.manifest, scales=world.cohort.scales
        )
    for secrets in (
        {**key.secrets, "group-0": other.secrets["group-0"]},  # another encryption, the same tags
        {**key.secrets, "tag": other.secrets["tag"]},  # the same encryption, other tags
    ):
        opener = opener_for(world.cohort.protection, StudyKey(public=key.public, secrets=secrets), TENSORS)
        with pytest.raises(TamperedError):
            opener.open(world.path, manifest=world.manifest, scales=world.cohort.scales)


# Changes of the sum itself


def shifted(world: World, folder: Path, group: int, changes: list[tuple[int, int, int]]) -> Path:
    """Return an aggregate to whose hidden words (block, place, amount) something was added: anybody can do that."""
    packing = packing_of(world.cohort.key.parameters, group)

    def change(rows):
        words = sent_words(packing, rows[f"group-{group}"])
        for block, place, amount in changes:
            value = int(words[block, place])
            if packing.prime:
                value = (value + round(amount * packing.prime / 2**packing.plain_bits)) % packing.prime
            words[block, place] = (value + (0 if packing.prime else amount)) % (packing.prime or 2**packing.plain_bits)
        rows[f"group-{group}"] = pack_words(words >> np.uint64(packing.dropped_bits), packing.sent_bits)

    return rewrite(world.path, folder / "shifted", change)


def factors(world: World, group: int, block: int) -> list[int]:
    """Return the tag's factors: what only the domains know."""
    header = world.manifest.updates[0].header
    keys = TagKeys.of(world.cohort.key.secrets["tag"], [header], group)
    return [int(word) % 2**61 for word in stream_words(keys.factors, block, 1)[0]]


def tag_changes(world: World, group: int, block: int, amount: int) -> list[tuple[int, int, int]]:
    """Return what to add to the tag's words so that the tag grows by ``amount`` modulo its prime."""
    packing = packing_of(world.cohort.key.parameters, group)
    amount %= TAG_PRIME
    limb = 2**packing.limb_bits
    return [
        (block, packing.tagged + place, (amount >> packing.limb_bits * place) % limb) for place in range(packing.limbs)
    ]


@pytest.mark.parametrize("group", [0, 1])
@pytest.mark.parametrize("amount", [1, -1, 2**20])
def test_an_offset_to_one_word_is_found_with_and_without_a_guess_of_its_tag(world, tmp_path, group, amount):
    rng = random.Random(amount)
    place = 5
    for guess in (None, 0, 1, 2**60, *(rng.randrange(TAG_PRIME) for _ in range(5))):
        changes = [(0, place, amount)]
        if guess is not None:
            changes += tag_changes(world, group, 0, amount * guess)
        path = shifted(world, tmp_path, group, changes)
        with pytest.raises(TamperedError):
            world.opens(path, world.announcing(path))


@pytest.mark.parametrize("group", [0, 1])
def test_whoever_knows_the_tags_key_can_forge_as_the_module_says(world, tmp_path, group):
    """The control for the test above: the same change with the right factor opens, to a wrong sum."""
    changes = [(0, 5, 1), *tag_changes(world, group, 0, factors(world, group, 0)[5])]
    path = shifted(world, tmp_path, group, changes)
    total = world.opens(path, world.announcing(path))
    assert np.count_nonzero(total != world.sum) == 1


@pytest.mark.parametrize("place", ["count", "tag"])
@pytest.mark.parametrize("group", [0, 1])
def test_the_count_and_the_tag_cannot_be_changed(world, tmp_path, group, place):
    packing = packing_of(world.cohort.key.parameters, group)
    index = packing.value_words if place == "count" else packing.tagged
    path = shifted(world, tmp_path, group, [(0, index, 1)])
    with pytest.raises(TamperedError):
        world.opens(path, world.announcing(path))


@pytest.mark.parametrize("group", [0, 1])
def test_another_count_is_found_even_under_a_right_tag(world, tmp_path, group):
    """As if a member had sealed for two: it can make the tag of anything that it seals."""
    place = packing_of(world.cohort.key.parameters, group).value_words
    changes = [(0, place, 1), *tag_changes(world, group, 0, factors(world, group, 0)[place])]
    path = shifted(world, tmp_path, group, changes)
    with pytest.raises(TamperedError, match="manifest lists"):
        world.opens(path, world.announcing(path))


def test_two_tampered_blocks_do_not_cancel(world, tmp_path):
    for changes in ([(0, 5, 1), (1, 5, -1)], [(0, 5, 3), (0, 6, -3)], [(0, 4095, 1), (1, 4095, -1)]):
        path = shifted(world, tmp_path, 0, changes)
        with pytest.raises(TamperedError):
            world.opens(path, world.announcing(path))


def test_nothing_is_opened_when_the_last_block_alone_is_wrong(world, tmp_path):
    path = shifted(world, tmp_path, 1, [(0, 7, 1)])
    caught = None
    try:
        result = world.opens(path, world.announcing(path))
    except TamperedError as error:
        caught, result = error, None
    assert result is None
    assert "not used" in str(caught)
