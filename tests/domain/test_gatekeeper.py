import json

import numpy as np
import pytest

from fedpriv.domain.gatekeeper import check_metrics, check_update, metric_bounds
from fedpriv.errors import GatekeeperError
from fedpriv.study.aggregation import AggregationChoice
from fedpriv.study.privacy import PrivacyChoice
from fedpriv.training.adapter import save_state

BOUNDS = {"train_loss": 1000.0, "heldout_loss": 1000.0, "examples": 40, "heldout_examples": 8} | {
    "train_tokens": 1536,
    "heldout_tokens": 768,
}


def test_bounds_follow_the_plan_and_the_shard(plan):
    assert metric_bounds(plan, examples=40, heldout_examples=8) == BOUNDS


@pytest.fixture
def before():
    generator = np.random.default_rng(0)
    shapes = {"base_model.model.q.lora_A.weight": (2, 5), "base_model.model.q.lora_B.weight": (4, 2)}
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_an_honest_update_passes(tmp_path, before, plan):
    save_state({name: value + np.float32(0.5) for name, value in before.items()}, tmp_path / "a.safetensors")
    update = check_update(tmp_path / "a.safetensors", before, plan, 1)
    assert update.shape == (18,)
    np.testing.assert_allclose(update, 0.5, atol=1e-6)


def averaging(plan, how):
    return plan.model_copy(update={"aggregation": AggregationChoice(averaging=how)})


@pytest.mark.parametrize("case", [("b_only", 1, "B"), ("b_only", 2, "B"), ("alternate", 2, "A")])
def test_an_update_holds_only_what_the_round_trains(tmp_path, before, plan, case):
    (how, number, half), path = case, tmp_path / "a.safetensors"
    trained = next(name for name in before if f"lora_{half}" in name)
    save_state(before | {trained: before[trained] + np.float32(0.5)}, path)
    update = check_update(path, before, averaging(plan, how), number)
    assert update.shape == (before[trained].size,)
    np.testing.assert_allclose(update, 0.5, atol=1e-6)


@pytest.mark.parametrize("change", [1e-6, 0.5, "sign of zero"])
def test_a_frozen_parameter_that_changed_by_a_bit_keeps_the_update_here(tmp_path, before, plan, change):
    frozen = next(name for name in before if "lora_A" in name)
    before[frozen][0, 0] = 0.0
    after = {name: value.copy() for name, value in before.items()}
    after[frozen][0, 0] = -0.0 if change == "sign of zero" else change
    save_state(after, tmp_path / "a.safetensors")
    for how, number in (("b_only", 2), ("alternate", 1)):
        with pytest.raises(GatekeeperError, match=r"changed parameters that round \d does not train") as refused:
            check_update(tmp_path / "a.safetensors", before, averaging(plan, how), number)
        assert "lora_A" not in refused.value.what  # which one it was, training code could choose
    check_update(tmp_path / "a.safetensors", before, averaging(plan, "alternate"), 2)


@pytest.mark.parametrize("attack", ["renamed", "missing", "extra", "shape", "dtype", "nan", "inf", "norm", "truncated"])
def test_what_is_not_such_an_update_stays(tmp_path, before, plan, attack):
    from safetensors.numpy import save_file

    state, path = dict(before), tmp_path / "a.safetensors"
    first, second = before
    if attack == "renamed":
        state["patient_in_bed_3_has.weight"] = state.pop(first)
    elif attack == "missing":
        del state[first]
    elif attack == "extra":
        state["more"] = np.zeros(3, np.float32)
    elif attack == "shape":
        state[first] = np.zeros((5, 2), np.float32)
    elif attack == "dtype":
        state[first] = state[first].astype(np.float64)
    elif attack in ("nan", "inf"):
        state[second] = np.full_like(state[second], np.nan if attack == "nan" else np.inf)
    elif attack == "norm":
        state[second] = state[second] + np.float32(1e4)
    save_file(state, path)
    if attack == "truncated":
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(GatekeeperError):
        check_update(path, before, plan, 1)


def test_a_link_out_of_the_output_folder_is_not_followed(tmp_path, before, plan):
    save_state(before, tmp_path / "secret.safetensors")
    (tmp_path / "a.safetensors").symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(GatekeeperError):
        check_update(tmp_path / "a.safetensors", before, plan, 1)


def test_listed_metrics_leave_rounded(tmp_path, plan):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"train_loss": 1.23456789, "examples": 12}))
    assert check_metrics(path, plan.metrics, BOUNDS) == {"train_loss": 1.23457, "examples": 12.0}
    assert check_metrics(path, ("examples", "heldout_loss"), BOUNDS) == {"examples": 12.0}


@pytest.mark.parametrize(
    "text",
    [
        '{"patient": 1}',
        '{"train_loss": "Mr X"}',
        '{"train_loss": NaN}',
        '{"train_loss": -1}',
        '{"train_loss": 1e300}',
        '{"examples": 12.5}',
        '{"examples": 41}',
        '{"train_tokens": 1537}',
        '{"heldout_tokens": 769}',
        "[]",
        "{",
    ],
)
def test_other_metrics_stay(tmp_path, plan, text):
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(GatekeeperError):
        check_metrics(path, plan.metrics, BOUNDS)


def test_with_privacy_no_number_about_training_patients_leaves(tmp_path, plan):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"train_loss": 1.2, "train_tokens": 900, "examples": 12, "heldout_loss": 2.0}))
    private = plan.model_copy(update={"privacy": PrivacyChoice(epsilon=8.0)})
    assert check_metrics(path, private.leaving_metrics, BOUNDS) == {"examples": 12.0, "heldout_loss": 2.0}
