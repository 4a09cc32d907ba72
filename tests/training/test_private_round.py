import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch

from fedpriv.errors import TrainingError
from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.training import adapter_digest, evaluate_local, noise, private_round, train_local
from fedpriv.training.examples import IGNORED, Example, collate, encode_patients, read_patients
from fedpriv.training.model import adapter_parameters, load_model, next_token_loss, put_adapter
from fedpriv.training.private_round import (
    PrivateSteps,
    clipped_sum,
    move,
    noisy_mean,
    per_note_gradients,
    train_private,
)

PATIENTS = 21
STEPS = PrivateSteps(noise_multiplier=1.0, sampling=0.5, patients=PATIENTS, clip=0.1, notes_per_patient=2)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def by_patient(shard, tmp_path_factory):
    """The shard's 40 notes as those of 21 patients: 1, 2 or 3 each."""
    path = tmp_path_factory.mktemp("patients") / "train.jsonl"
    owners = itertools.cycle([0, 1, 1, 2, 2, 2])
    lines, base = [], 0
    for number, line in enumerate((shard / "train.jsonl").read_text().splitlines()):
        base = 3 * (number // 6)
        lines.append(json.dumps({**json.loads(line), "patient": base + next(owners)}) + "\n")
    path.write_text("".join(lines))
    assert len(read_patients(path)) == PATIENTS
    return path


@pytest.fixture
def private(context, by_patient):
    return dataclasses.replace(context, train=by_patient)


@pytest.fixture
def patients(private):
    return encode_patients(private.model_folder, read_patients(private.train), max_tokens=48)


@pytest.fixture
def model(private):
    model = load_model(private.model_folder, private.lora)
    put_adapter(model, {name: array + np.float32(0.01) for name, array in private.adapter.items()})
    return model


def lora_b(model):
    return {name: p for name, p in adapter_parameters(model).items() if name.endswith("lora_B.weight")}


def one_by_one(model, trained, patients, clip):
    """The same sum by an ordinary backward pass for each patient."""
    total = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in trained.items()}
    for patient in patients:
        inputs, labels = collate(patient)
        model.zero_grad(set_to_none=True)
        (next_token_loss(model, inputs, labels) / int((labels != IGNORED).sum())).backward()
        gradients = {name: p.grad.double().clone() for name, p in trained.items()}
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
        for name, gradient in gradients.items():
            total[name] += gradient * min(1.0, clip / norm)
    return total


def distance(first, second):
    return math.sqrt(sum(float((first[name] - second[name]).square().sum()) for name in first))


@pytest.mark.parametrize(("clip", "rows"), [(0.05, 1), (0.5, 3), (100.0, 16), (0.5, 100)])
def test_the_clipped_sum_is_that_of_one_backward_pass_a_patient(model, patients, clip, rows, monkeypatch):
    monkeypatch.setattr(private_round, "MOST_ROWS", rows)
    trained = lora_b(model)
    expected = one_by_one(model, trained, patients, clip)
    with per_note_gradients(model, trained):
        found = clipped_sum(model, trained, patients, clip=clip, most=3)
    assert distance(found, expected) < 1e-4 * max(1.0, distance(found, dict.fromkeys(found, torch.zeros(()))))


def test_one_patient_changes_the_sum_by_the_clip_at_the_most(model, patients):
    trained, clip = lora_b(model), 0.05
    with per_note_gradients(model, trained):
        whole = clipped_sum(model, trained, patients, clip=clip, most=3)
        for left_out in range(0, PATIENTS, 5):
            without = clipped_sum(model, trained, [*patients[:left_out], *patients[left_out + 1 :]], clip=clip, most=3)
            assert distance(whole, without) == pytest.approx(clip, rel=1e-3)  # these gradients are all longer
        twice = clipped_sum(model, trained, [[Example(note.ids * 3) for note in patients[0]] * 9], clip=clip, most=100)
    assert distance(twice, dict.fromkeys(twice, torch.zeros(()))) <= clip * 1.0001


def test_a_patient_with_many_notes_gives_no_more_than_the_most(model, patients, monkeypatch):
    trained = lora_b(model)
    monkeypatch.setattr(noise, "chosen", lambda count, most: np.arange(min(count, most)))
    with per_note_gradients(model, trained):
        all_notes = clipped_sum(model, trained, patients, clip=1.0, most=1)
        first = clipped_sum(model, trained, [notes[:1] for notes in patients], clip=1.0, most=1)
    assert distance(all_notes, first) == 0


def test_a_gradient_that_is_not_finite_counts_as_nothing(model, patients, monkeypatch):
    trained = lora_b(model)
    real = private_round._patient_gradients

    def spoilt(model, trained, group):
        gradients = real(model, trained, group)
        next(iter(gradients.values()))[0, 0, 0] = math.nan
        return gradients

    monkeypatch.setattr(private_round, "MOST_ROWS", 100)
    ordered = sorted(patients, key=lambda notes: max(map(len, notes)))
    with per_note_gradients(model, trained):
        expected = clipped_sum(model, trained, ordered[1:], clip=1.0, most=9)
        monkeypatch.setattr(private_round, "_patient_gradients", spoilt)
        found = clipped_sum(model, trained, ordered, clip=1.0, most=9)
    assert distance(found, expected) < 1e-5


def test_afterwards_the_model_is_as_it_was(model, private, patients):
    train_private(private, STEPS)
    parameters = adapter_parameters(model)
    assert all(p.requires_grad and p.grad is None and not hasattr(p, "grad_sample") for p in parameters.values())
    inputs, labels = collate(patients[0])
    next_token_loss(model, inputs, labels).backward()
    assert not any(hasattr(p, "grad_sample") for p in parameters.values())
    model.zero_grad(set_to_none=True)
    after = train_local(dataclasses.replace(private))  # the same bits as in a process that never trained privately
    assert adapter_digest(after.adapter_after) == adapter_digest(train_local(private).adapter_after)


def test_without_noise_the_loss_falls_and_only_lora_b_moves(private):
    before = evaluate_local(private)["heldout_loss"]
    exact = PrivateSteps(noise_multiplier=0.0, sampling=1.0, patients=PATIENTS, clip=0.1, notes_per_patient=3)
    training = TrainingChoice(steps=12, learning_rate=5e-3)
    outcome = train_private(dataclasses.replace(private, training=training), exact)
    assert outcome.metrics == {"examples": 40.0}
    for name, array in outcome.adapter_after.items():
        assert np.array_equal(array, private.adapter[name]) == name.endswith("lora_A.weight")
    after = evaluate_local(dataclasses.replace(private, adapter=outcome.adapter_after))["heldout_loss"]
    assert after < before - 0.3


def test_with_noise_every_run_is_another_although_the_seed_is_the_same(private):
    first, second = train_private(private, STEPS), train_private(private, STEPS)
    assert adapter_digest(first.adapter_after) != adapter_digest(second.adapter_after)


def test_a_step_that_draws_nobody_is_a_step_of_noise(private):
    nobody = PrivateSteps(noise_multiplier=1.0, sampling=1e-9, patients=PATIENTS, clip=0.1, notes_per_patient=1)
    moved = train_private(private, nobody).adapter_after
    assert any(np.abs(moved[name] - array).max() > 0 for name, array in private.adapter.items())


def test_the_noise_has_the_deviation_that_is_accounted_for(model):
    trained = lora_b(model)
    total = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in trained.items()}
    drawn = torch.cat([part.ravel() for part in noisy_mean(total, STEPS).values()])
    expected = STEPS.noise_multiplier * STEPS.clip / (STEPS.sampling * STEPS.patients)
    assert float(drawn.std()) == pytest.approx(expected, rel=0.05)
    assert abs(float(drawn.mean())) < 5 * expected / math.sqrt(len(drawn))


def test_a_step_moves_a_parameter_by_the_learning_rate_in_the_root_mean_square(model):
    trained = lora_b(model)
    before = torch.cat([p.detach().ravel().clone() for p in trained.values()])
    direction = {name: torch.randn(p.shape, dtype=torch.float64) * 1e-6 for name, p in trained.items()}
    move(trained, direction, 0.01)
    moved = torch.cat([p.detach().ravel() for p in trained.values()]) - before
    assert float(moved.square().mean().sqrt()) == pytest.approx(0.01, rel=1e-3)
    cosine = torch.nn.functional.cosine_similarity(
        moved.double(), torch.cat([part.ravel() for part in direction.values()]), dim=0
    )
    assert float(cosine) == pytest.approx(-1, abs=1e-3)
    move(trained, {name: torch.zeros_like(part) for name, part in direction.items()}, 0.01)
    assert torch.isfinite(torch.cat([p.detach().ravel() for p in trained.values()])).all()


def test_time_limit_keeps_the_work_so_far(private, monkeypatch):
    clock = itertools.count(step=10)
    monkeypatch.setattr("fedpriv.training.private_round.time.monotonic", lambda: next(clock))
    steps = []
    training = TrainingChoice(steps=50, max_seconds=25)
    train_private(dataclasses.replace(private, training=training, report=lambda step, _: steps.append(step)), STEPS)
    assert steps == [1, 2, 3]


def test_a_file_with_other_patients_than_accounted_for_is_not_trained_on(private):
    with pytest.raises(TrainingError, match="other patients than are accounted for"):
        train_private(private, STEPS.model_copy(update={"patients": 22}))


def test_a_file_that_does_not_say_whose_an_example_is_is_refused(context):
    with pytest.raises(TrainingError, match="does not say which patient"):
        train_private(context, STEPS)


def test_dropout_is_refused_by_the_plan():
    from fedpriv.study.plan import Plan
    from fedpriv.study.privacy import PrivacyChoice
    from tests.study.study_plans import SMALL

    value = {**SMALL, "lora": {"dropout": 0.1}, "privacy": {"epsilon": 8.0}}
    with pytest.raises(ValueError, match="dropout must be 0"):
        Plan.model_validate_json(json.dumps(value))
    assert LoraChoice().dropout == 0
    assert PrivacyChoice(epsilon=8).bound == 0.1
