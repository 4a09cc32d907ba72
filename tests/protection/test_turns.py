"""One key for rounds that send different tensors: which groups are in an update, and that no other round's get in."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import ContainerError, ProtectionError, UntrustedError
from fedpriv.files import file_sha256
from fedpriv.protection import adder_for, opener_for, sealer_for, sign_update
from fedpriv.protection.groups import groups_of, in_update, live
from fedpriv.protection.places import Places
from fedpriv.protection.sizes import update_bytes
from fedpriv.study.averaging import is_live
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice
from tests.protection.helpers import make_cohort

TENSORS = {"1.lora_A": 700, "1.lora_B": 300, "2.lora_A": 900, "2.lora_B": 500}
TURNS = {name: 1 if name.endswith("B") else 2 for name in TENSORS}
MIXED = {"1.lora_A": 2, "1.lora_B": 1, "2.lora_A": 0, "2.lora_B": 1}
HALF_MASKED = (LevelRule(tensors=("1.*",), level="masked", bits=6),)

sizes_and_turns = st.tuples(st.integers(1, 9), st.sampled_from([0, 1, 2]))
tensors = st.dictionaries(st.sampled_from("abcdefgh"), sizes_and_turns, min_size=1)


def names_in(cohort, number):
    return sorted(name for name in cohort.tensors if is_live(cohort.turns[name], number))


choices = st.sampled_from([(), (10,), (4, 10), (16, 6, 10)])


@given(tensors, st.integers(1, 1000), st.integers(0, 3), choices, st.data())
def test_an_update_holds_each_live_tensor_once_and_in_order(drawn, number, masked, several, data):
    sizes, turns = ({name: both[part] for name, both in drawn.items()} for part in (0, 1))
    some = tuple(sorted(drawn)[:masked])
    own = data.draw(st.sampled_from([None, 6, 10]))
    rules = (LevelRule(tensors=some, level="masked", bits=own),) if some else ()
    protection = ProtectionChoice(rules=rules, bits_choices=several)
    groups = groups_of(protection, sizes, turns)
    bits = data.draw(st.sampled_from(several or (10,)))
    indices = live(groups, number, bits)
    found = sorted((s.start, s.size, s.name) for g in in_update(groups, indices).values() for s in g.spans)
    wanted, start = [], 0
    for name in sorted(drawn):
        if is_live(turns[name], number):
            wanted.append((start, sizes[name], name))
            start += sizes[name]
    assert found == wanted
    assert Places(groups, indices).size == start
    for index in indices:
        for span in groups[index].spans:
            assert groups[index].bits == ((own or bits) if span.name in some else bits)
    ever = {i for n in (number, number + 1) for b in several or (10,) for i in live(groups, n, b)}
    assert ever == set(range(len(groups)))  # no group is left out of all


@given(tensors)
def test_a_group_has_one_turn_and_the_order_of_the_groups_is_the_same_for_all(drawn):
    sizes, turns = ({name: both[part] for name, both in drawn.items()} for part in (0, 1))
    groups = groups_of(ProtectionChoice(), sizes, turns)
    assert [group.turn for group in groups] == sorted(set(turns.values()))
    assert all(turns[span.name] == group.turn for group in groups for span in group.spans)


@pytest.mark.parametrize("rules", [(), HALF_MASKED], ids=["one level", "hybrid"])
@pytest.mark.parametrize("level", ["sealed", "masked", "ckks-tuned", "plain"])
@pytest.mark.parametrize("turns", [TURNS, MIXED], ids=["alternate", "mixed"])
def test_every_round_opens_to_the_sum_of_its_own_tensors(tmp_path, level, rules, turns):
    cohort = make_cohort(tmp_path, level, tensors=TENSORS, turns=turns, rules=rules)
    for number in (1, 2, 3):
        parts = cohort.seal_all(round=number)
        path, digest = cohort.add(list(parts.values()))
        opened = cohort.open(path, cohort.manifest(list(parts.values()), digest))
        expected = sum(part.sent for part in parts.values())
        assert opened.sum.shape == (cohort.size_in(number),) == expected.shape
        np.testing.assert_allclose(opened.sum, expected, atol=1e-4)
        quantised = {name for name in TENSORS if cohort.protection.of_tensor(name)[1]}
        moved = {n for n, a, b in zip(sorted(TENSORS), opened.next_scales, cohort.scales, strict=True) if a != b}
        assert moved == quantised & set(names_in(cohort, number))
        cohort.scales = opened.next_scales


def test_half_the_parameters_are_half_the_bytes(tmp_path):
    tensors = {"1.lora_A": 40_000, "1.lora_B": 40_000}
    turns = {"1.lora_A": 2, "1.lora_B": 1}
    cohort = make_cohort(tmp_path, "sealed", tensors=tensors, turns=turns)
    whole = make_cohort(tmp_path, "sealed", tensors=tensors)
    zeros = np.zeros(80_000, np.float32)
    sizes = [cohort.seal("d00@example.org", zeros[:40_000], round=n).signed.container_bytes for n in (1, 2)]
    full = whole.seal("d00@example.org", zeros).signed.container_bytes
    assert sizes[0] == sizes[1]
    assert 0.45 < sizes[0] / full < 0.62  # blocks are filled up
    for number, size in zip((1, 2), sizes, strict=True):
        estimate = update_bytes(cohort.protection, tensors=tensors, turns=turns, clients=3, round_number=number)
        assert size == pytest.approx(estimate, abs=1024)


def test_an_update_of_another_round_s_tensors_is_neither_sealed_nor_added_nor_opened(tmp_path):
    tensors, turns = {"1.lora_A": 500, "1.lora_B": 500}, {"1.lora_A": 2, "1.lora_B": 1}
    cohort = make_cohort(tmp_path, "masked", tensors=tensors, turns=turns)
    first, *others = cohort.seal_all(round=1).values()
    path, digest = cohort.add([first, *others])
    manifest = cohort.manifest([first, *others], digest)
    with pytest.raises(ProtectionError, match="for 500 parameters, not 1000"):
        cohort.seal("d00@example.org", np.zeros(1000, np.float32), parameters=1000)
    # The sizes fit, so that only the names of the arrays tell the rounds apart: the container of round 1 says round 2.
    header = first.signed.header.model_copy(update={"round": 2})
    data = first.path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    claimed = json.loads(head["__metadata__"]["header"]) | {"round": 2}
    head["__metadata__"]["header"] = json.dumps(claimed, sort_keys=True, separators=(",", ":"))
    text = json.dumps(head, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    forged = tmp_path / "forged"
    forged.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    keys = cohort.keys[header.member]
    signed = sign_update(keys, header, file_sha256(forged), forged.stat().st_size)
    honest = list(cohort.seal_all(round=2).values())[1:]
    with pytest.raises(ContainerError, match="holds group-0 in place of group-1"):
        adder_for(cohort.key.public).add([(signed, forged), *((p.signed, p.path) for p in honest)], tmp_path / "sum")
    other = manifest.model_copy(
        update={
            "round": 2,
            "updates": tuple(
                update.model_copy(update={"header": update.header.model_copy(update={"round": 2})})
                for update in manifest.updates
            ),
        }
    )
    with pytest.raises(ContainerError):
        cohort.open(path, other)


def test_a_key_for_other_turns_is_refused(tmp_path):
    cohort = make_cohort(tmp_path, "masked", tensors=TENSORS, turns=TURNS)
    for turns in (None, MIXED, {name: 3 - turn for name, turn in TURNS.items()}):
        with pytest.raises(ProtectionError, match="another protection"):
            opener_for(cohort.protection, cohort.key, TENSORS, turns=turns)
        with pytest.raises(ProtectionError, match="another protection"):
            sealer_for(cohort.protection, cohort.key, TENSORS, turns=turns, masks=cohort.masks("d00@example.org"))


def test_groups_of_different_turns_have_masks_and_secrets_of_their_own(tmp_path):
    """The same zeros in two rounds in a row: nothing of one round's rows is in the other's."""
    tensors = {"1.lora_A": 4000, "1.lora_B": 4000}
    cohort = make_cohort(tmp_path, "sealed", tensors=tensors, turns={"1.lora_A": 2, "1.lora_B": 1})
    rows = []
    for number in (1, 2):
        part = cohort.seal("d00@example.org", np.zeros(4000, np.float32), round=number)
        data = part.path.read_bytes()
        rows.append(np.frombuffer(data[8 + int.from_bytes(data[:8], "little") :], np.uint8))
    same = float((rows[0] == rows[1]).mean())
    assert same == pytest.approx(1 / 256, abs=0.002)
    assert set(cohort.key.secrets) == {"tag", "group-0", "group-1"}


CHOICES = {"bits": 10, "bits_choices": (4, 6, 10)}


@pytest.mark.parametrize("turns", [None, TURNS], ids=["both", "alternate"])
@pytest.mark.parametrize("level", ["sealed", "masked"])
def test_one_key_serves_rounds_of_any_of_its_bits_and_nothing_is_lost_on_the_way(tmp_path, level, turns):
    cohort = make_cohort(tmp_path, level, tensors=TENSORS, turns=turns, **CHOICES)
    residuals = dict.fromkeys(cohort.members)
    rng = np.random.default_rng(5)
    sent = total = 0.0
    for number, bits in zip((1, 3, 5), (10, 4, 6), strict=True):
        updates = {e: rng.normal(0, 0.02, cohort.size_in(number)).astype(np.float32) for e in cohort.members}
        parts = [
            cohort.seal(e, u, round=number, bits=bits, name=f"{e[:3]}-{number}.part", residual=residuals[e])
            for e, u in updates.items()
        ]
        residuals = {e: tmp_path / f"{e[:3]}-{number}.residual" for e in cohort.members}
        path, digest = cohort.add(parts)
        opened = cohort.open(path, cohort.manifest(parts, digest))
        cohort.scales = opened.next_scales
        sent = sent + opened.sum.astype(np.float64)
        total = total + sum(update.astype(np.float64) for update in updates.values()) / 3
    left = sum(part.residual.astype(np.float64) for part in parts)
    np.testing.assert_allclose(sent + left, total, atol=1e-5)


def test_fewer_bits_are_fewer_bytes(tmp_path):
    cohort = make_cohort(tmp_path, "sealed", tensors={"a": 120_000}, **CHOICES)
    zeros = np.zeros(120_000, np.float32)
    sizes = {b: cohort.seal("d00@example.org", zeros, bits=b).signed.container_bytes for b in (4, 6, 10)}
    assert sizes[4] < 0.6 * sizes[10]
    for bits, size in sizes.items():
        estimate = update_bytes(cohort.protection, tensors=cohort.tensors, clients=3, bits=bits)
        assert size == pytest.approx(estimate, abs=1024)


def test_bits_that_the_plan_does_not_have_are_refused_by_every_role(tmp_path):
    cohort = make_cohort(tmp_path, "masked", **CHOICES)
    with pytest.raises(ProtectionError, match="rounds of 4, 6, 10 bits, not of 8"):
        cohort.seal_all(bits=8)
    parts = list(cohort.seal_all(bits=6).values())
    path, digest = cohort.add(parts)
    manifest = cohort.manifest(parts, digest)
    lying = [u.model_copy(update={"header": u.header.model_copy(update={"bits": 8})}) for u in manifest.updates]
    with pytest.raises(ProtectionError, match="not of 8"):
        adder_for(cohort.key.public).add(
            [(signed, part.path) for signed, part in zip(lying, parts, strict=True)], tmp_path / "again"
        )
    with pytest.raises(ProtectionError, match="not of 8"):
        cohort.open(path, manifest.model_copy(update={"updates": tuple(lying)}))


def test_updates_of_different_bits_are_not_added(tmp_path):
    cohort = make_cohort(tmp_path, "masked", **CHOICES)
    parts = list(cohort.seal_all(bits=6).values())
    other = cohort.seal(cohort.members[0], np.zeros(cohort.size, np.float32), bits=4, name="other")
    with pytest.raises(UntrustedError, match="differ in bits"):
        cohort.add([other, *parts[1:]])
