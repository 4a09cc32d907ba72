"""A view shows what the bytes show: all of a plain update, the quantised one once all others collude, else noise."""

import numpy as np
import pytest

from fedpriv.errors import ContainerError, ProtectionError
from fedpriv.leakage import Rehearsal, View, aggregator_view, sum_view
from fedpriv.leakage.views import read_without_secrets
from fedpriv.protection.packing import plan_packing
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice
from tests.leakage.conftest import noise

LAYOUT = {"x.lora_A.weight": (8, 700), "x.lora_B.weight": (300, 8), "y.lora_A.weight": (8, 90)}
CLIP = 5e-3
MEMBERS = 3


def rehearsal(tmp_path, level, **choices):
    return Rehearsal(ProtectionChoice(level=level, **choices), LAYOUT, tmp_path, members=MEMBERS, clip=CLIP)


def updates():
    return [noise(LAYOUT, seed) for seed in range(MEMBERS)]


def correlation(view: View, update) -> float:
    seen = np.concatenate([view.tensors[name].ravel() for name in sorted(LAYOUT)])
    return float(np.corrcoef(seen, np.concatenate([update[name].ravel() for name in sorted(LAYOUT)]))[0, 1])


def test_of_a_plain_update_the_aggregator_sees_everything(tmp_path):
    cohort, sent = rehearsal(tmp_path, "plain"), updates()
    view = cohort.aggregator_view(cohort.publish(sent)[1])
    assert set(view.levels.values()) == {"plain"}
    for name, shape in LAYOUT.items():
        assert view.tensors[name].shape == shape
        np.testing.assert_allclose(view.tensors[name], sent[1][name] / MEMBERS, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("level", ["masked", "sealed"])
def test_of_a_masked_or_sealed_one_it_sees_noise(tmp_path, level):
    cohort, sent = rehearsal(tmp_path, level), updates()
    view = cohort.aggregator_view(cohort.publish(sent)[1])
    assert set(view.levels.values()) == {level}
    assert abs(correlation(view, sent[1])) < 5 / np.sqrt(sum(np.prod(shape) for shape in LAYOUT.values()))


@pytest.mark.parametrize("level", ["masked", "sealed", "plain"])
def test_of_the_sum_all_others_take_their_own_off_and_one_is_left(tmp_path, level):
    cohort, sent = rehearsal(tmp_path, level), updates()
    published = cohort.publish(sent)
    alone, all_others = cohort.sum_view(published), cohort.sum_view(published, colluding=[0, 2])
    step = CLIP / 511  # of 10 bits
    for name in LAYOUT:
        total = sum(update[name].astype(np.float64) for update in sent) / MEMBERS
        np.testing.assert_allclose(alone.tensors[name], total, atol=MEMBERS * step)
        np.testing.assert_allclose(all_others.tensors[name], sent[1][name] / MEMBERS, atol=1.01 * step)
    assert all_others.party == "2 colluding domains"
    assert 0.5 < correlation(alone, sent[1]) < 0.65  # one of three that are alike: 1 / sqrt(3)


def test_the_left_update_is_exactly_what_its_member_sent(tmp_path):
    cohort = rehearsal(tmp_path, "sealed")
    published = cohort.publish(updates())
    left = cohort.sum_view(published, colluding=[0, 2])
    flat = np.concatenate([left.tensors[name].ravel() for name in sorted(LAYOUT)])
    np.testing.assert_allclose(flat, published[1].sent, atol=1e-8)


def test_a_hybrid_plan_shows_each_tensor_at_its_level(tmp_path):
    rules = (LevelRule(tensors=("*lora_B*",), level="plain"), LevelRule(tensors=("y.*",), level="masked"))
    cohort, sent = rehearsal(tmp_path, "sealed", rules=rules), updates()
    view = cohort.aggregator_view(cohort.publish(sent)[0])
    assert view.levels == {"x.lora_A.weight": "sealed", "x.lora_B.weight": "plain", "y.lora_A.weight": "masked"}
    np.testing.assert_allclose(view.tensors["x.lora_B.weight"], sent[0]["x.lora_B.weight"] / MEMBERS, rtol=1e-5)
    for name in ("x.lora_A.weight", "y.lora_A.weight"):
        assert abs(np.corrcoef(view.tensors[name].ravel(), sent[0][name].ravel())[0, 1]) < 0.2


def test_two_publications_of_a_rehearsal_share_no_mask(tmp_path):
    cohort, sent = rehearsal(tmp_path, "masked"), updates()
    first, second = (cohort.aggregator_view(cohort.publish(sent)[0]) for _ in range(2))
    assert abs(np.corrcoef(*(view.tensors["x.lora_A.weight"].ravel() for view in (first, second)))[0, 1]) < 0.1


@pytest.mark.parametrize("security", [None, "tc192", "tc256"])
@pytest.mark.parametrize("bits", [4, 10, 16])
def test_without_masks_and_key_the_reading_is_the_update(security, bits):
    """The positive control of every view: were the protection missing, these numbers would be the update's."""
    packing = plan_packing(bits=bits, clients=3, security=security)
    rng = np.random.default_rng(1)
    digits, _, _ = packing.quantise(rng.uniform(-1, 1, 2 * packing.width).astype(np.float32), rng)
    words = np.zeros((2, 4096), np.uint64)
    words[:, : packing.value_words] = packing.pack(digits)
    if packing.prime:  # a ciphertext with the secret key zero, and the noise of the scheme
        shift, off = 2**packing.plain_bits, rng.integers(-21, 22, words.shape).astype(object)
        words = (((words.astype(object) * packing.prime + shift // 2) // shift + off) % packing.prime).astype(np.uint64)
    read = read_without_secrets(packing, words)
    np.testing.assert_array_equal(np.rint(read * packing.half).astype(int), digits.astype(int) - packing.half)


def test_a_changed_container_or_another_key_makes_no_view(tmp_path):
    cohort, other = (rehearsal(tmp_path, "masked") for _ in range(2))
    published, foreign = (some.publish(updates())[0] for some in (cohort, other))
    with pytest.raises(ProtectionError, match="another study key"):
        cohort.aggregator_view(foreign)
    data = bytearray(published.path.read_bytes())
    data[-1] ^= 1
    published.path.write_bytes(data)
    with pytest.raises(ContainerError):
        cohort.aggregator_view(published)


def test_the_scales_only_change_the_unit(tmp_path):
    cohort = rehearsal(tmp_path, "plain")
    published = cohort.publish(updates())[0]
    known = cohort.aggregator_view(published)
    facts = {"public": cohort._key.public, "protection": cohort.protection, "layout": LAYOUT}
    unknown = aggregator_view(published.signed, published.path, **facts)
    for name in LAYOUT:
        np.testing.assert_allclose(unknown.tensors[name] * CLIP, known.tensors[name])


def test_of_ckks_no_view_is_claimed(tmp_path):
    cohort = rehearsal(tmp_path, "ckks-tuned")
    with pytest.raises(ProtectionError, match="No view of level ckks-tuned"):
        cohort.aggregator_view(cohort.publish(updates())[0])


def test_a_sum_of_another_size_makes_no_view():
    with pytest.raises(ProtectionError, match="not of this layout"):
        sum_view(np.zeros(5), layout={"a": (2, 2)})


def test_a_rehearsal_needs_a_clip_and_an_update_for_each_member(tmp_path):
    with pytest.raises(ProtectionError, match="needs a clip"):
        Rehearsal(ProtectionChoice(), LAYOUT, tmp_path)
    with pytest.raises(ProtectionError, match="publishes as many"):
        rehearsal(tmp_path, "plain").publish(updates()[:2])
