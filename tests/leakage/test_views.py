"""A view shows what the bytes show: all of a plain update, the quantised one once all others collude, else noise."""

import numpy as np
import pytest

from fedpriv.errors import ContainerError, ProtectionError
from fedpriv.leakage import Rehearsal, View, aggregator_view, sum_view
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


HIDDEN = ["masked", "sealed", "ckks", "ckks-tuned"]
CHANCE = 5 / np.sqrt(sum(np.prod(shape) for shape in LAYOUT.values()))
"""Five standard deviations of the correlation of two vectors that have nothing to do with each other."""


@pytest.mark.parametrize("level", HIDDEN)
def test_neither_the_store_nor_the_aggregator_sees_more_than_noise(tmp_path, level):
    cohort, sent = rehearsal(tmp_path, level), updates()
    published = cohort.publish(sent)
    store = cohort.store_view(published[1])
    after = cohort.aggregator_view(published[1], unlocked=cohort.unlock(published))
    assert (store.party, after.party) == ("the store", "the aggregator")
    for view in (store, after):
        assert set(view.levels.values()) == {level}
        assert all(np.isfinite(tensor).all() and tensor.std() > 0 for tensor in view.tensors.values())
        assert abs(correlation(view, sent[1])) < CHANCE


def test_the_store_holds_what_the_aggregator_holds(tmp_path):
    cohort = rehearsal(tmp_path, "sealed")
    published = cohort.publish(updates())[0]
    for name, tensor in cohort.aggregator_view(published).tensors.items():
        np.testing.assert_array_equal(cohort.store_view(published).tensors[name], tensor)


@pytest.mark.parametrize("level", ["ckks", "ckks-tuned"])
def test_in_he_fl_any_domain_that_reads_the_store_has_the_update(tmp_path, level):
    cohort, sent = rehearsal(tmp_path, level), updates()
    view = cohort.domain_view(cohort.publish(sent)[1], colluding=[0])
    assert set(view.levels.values()) == {"opened"}
    for name in LAYOUT:
        np.testing.assert_allclose(view.tensors[name], sent[1][name] / MEMBERS, atol=CLIP / 1000)


@pytest.mark.parametrize("level", ["masked", "sealed"])
def test_of_a_masked_update_a_domain_that_reads_the_store_has_noise(tmp_path, level):
    """Alone, with the other one before the round is over, or alone after it: one mask at least is left."""
    cohort, sent = rehearsal(tmp_path, level), updates()
    published = cohort.publish(sent)
    unlocked = cohort.unlock(published)
    for colluding, known in (([0], None), ([2], unlocked), ([0, 2], None), ([], unlocked)):
        view = cohort.domain_view(published[1], colluding=colluding, unlocked=known)
        assert set(view.levels.values()) == {"masked"}
        assert abs(correlation(view, sent[1])) < CHANCE


@pytest.mark.parametrize("level", ["masked", "sealed"])
@pytest.mark.parametrize("victim", range(MEMBERS))
def test_control_with_every_mask_taken_off_it_is_exactly_what_was_sent(tmp_path, level, victim):
    cohort = rehearsal(tmp_path, level)
    published = cohort.publish(updates())
    others = [member for member in range(MEMBERS) if member != victim]
    view = cohort.domain_view(published[victim], colluding=others, unlocked=cohort.unlock(published))
    assert set(view.levels.values()) == {"opened"}
    flat = np.concatenate([view.tensors[name].ravel() for name in sorted(LAYOUT)])
    np.testing.assert_allclose(flat, published[victim].sent, atol=1e-8)
    assert view.party == "2 colluding domains with the store's bytes"


def test_the_late_update_of_a_member_that_dropped_out_keeps_its_self_mask(tmp_path):
    """The recovery lays all of its pairwise masks open; see the module of the masks."""
    cohort, sent = rehearsal(tmp_path, "sealed"), updates()
    published = cohort.publish(sent)
    unlocked = cohort.unlock([published[0], published[2]])
    view = cohort.domain_view(published[1], colluding=[0, 2], unlocked=unlocked)
    assert set(view.levels.values()) == {"masked"}
    assert abs(correlation(view, sent[1])) < CHANCE
    survivor = cohort.domain_view(published[0], colluding=[2], unlocked=unlocked)
    left = np.concatenate([survivor.tensors[name].ravel() for name in sorted(LAYOUT)])
    np.testing.assert_allclose(left, published[0].sent, atol=1e-8)
    assert set(survivor.levels.values()) == {"opened"}


def test_a_hybrid_plan_shows_each_tensor_at_its_level_in_all_views(tmp_path):
    rules = (
        LevelRule(tensors=("x.lora_B*",), level="masked"),
        LevelRule(tensors=("y.*",), level="ckks-tuned"),
    )
    cohort, sent = rehearsal(tmp_path, "sealed", rules=rules), updates()
    published = cohort.publish(sent)
    unlocked = cohort.unlock(published)
    names = sorted(LAYOUT)

    def levels(view):
        return [view.levels[name] for name in names]

    assert levels(cohort.store_view(published[0])) == ["sealed", "masked", "ckks-tuned"]
    one = cohort.domain_view(published[0], colluding=[1], unlocked=unlocked)
    assert levels(one) == ["masked", "masked", "opened"]
    np.testing.assert_allclose(one.tensors[names[2]], sent[0][names[2]] / MEMBERS, atol=CLIP / 1000)
    for name in names[:2]:
        assert abs(np.corrcoef(one.tensors[name].ravel(), sent[0][name].ravel())[0, 1]) < 0.1
    both = cohort.domain_view(published[0], colluding=[1, 2], unlocked=unlocked)
    assert levels(both) == ["opened"] * 3
    for name in names:
        np.testing.assert_allclose(both.tensors[name], sent[0][name] / MEMBERS, atol=1.01 * CLIP / 511)


def test_a_domain_makes_no_view_of_its_own_update(tmp_path):
    cohort = rehearsal(tmp_path, "sealed")
    with pytest.raises(ProtectionError, match="another member"):
        cohort.domain_view(cohort.publish(updates())[0], colluding=[0, 1])


def test_a_sum_of_another_size_makes_no_view():
    with pytest.raises(ProtectionError, match="not of this layout"):
        sum_view(np.zeros(5), layout={"a": (2, 2)})


def test_a_rehearsal_needs_a_clip_and_an_update_for_each_member(tmp_path):
    with pytest.raises(ProtectionError, match="needs a clip"):
        Rehearsal(ProtectionChoice(), LAYOUT, tmp_path)
    with pytest.raises(ProtectionError, match="publishes as many"):
        rehearsal(tmp_path, "plain").publish(updates()[:2])
