"""A private round at a domain: charged before it is trained, once whatever happens, and never beyond the budget."""

import json
from pathlib import Path

import pytest

from fedpriv.clinical import PreparedData
from fedpriv.domain.privacy_budget import CHARGED, planned_mechanism
from fedpriv.domain.releasing import Releasing
from fedpriv.domain.requests import RequestBook
from fedpriv.domain.runner import JobReport
from fedpriv.domain.tickets import StudyWork
from fedpriv.errors import RefusedError, TrainingError
from fedpriv.study.privacy import PrivacyChoice
from fedpriv.study.shard import ShardStatement
from fedpriv.training.adapter import save_state
from fedpriv.training.base_model import LocalModel
from tests.domain.cohort import MEMBERS, START, Cohort

EMAIL, PATIENTS = MEMBERS[0], 50


class Training:
    """Stands in for the sandboxed worker; keeps what it was asked, and fails as often as it is told to."""

    walls, report = "none", JobReport()

    def __init__(self, context, failures=0):
        self.context, self.failures, self.asked = context, failures, []

    def run(
        self,
        kind,
        round_number,
        adapter,
        output,
        on_step,
        *,
        evaluate=False,
        private=None,
        watch=None,
        steps=None,
        seconds=None,
    ):
        charged = [e for e in self.context.ledger.entries() if e.kind == CHARGED]
        self.asked.append((kind, evaluate, private, len(charged)))
        if len(self.asked) <= self.failures:
            raise KeyboardInterrupt
        metrics = {"examples": 70, "train_loss": 1.5, "train_tokens": 99, "heldout_loss": 2.5, "heldout_tokens": 10}
        (output / "metrics.json").write_text(json.dumps(metrics))
        if kind == "train":
            save_state(START, output / "adapter_after.safetensors")


def work_of(tmp_path, ada, *, privacy, budget=None, failures=0):
    cohort = Cohort(tmp_path, ada, privacy=privacy)
    context = cohort.domains[EMAIL]
    policy = context.config.policy.model_copy(update={"epsilon": budget})
    context.config = context.config.model_copy(update={"policy": policy})
    nowhere = Path("nowhere")
    prepared = PreparedData(
        folder=nowhere,
        digest="0" * 64,
        train=nowhere,
        heldout=nowhere,
        examples=70,
        heldout_examples=9,
        patients=PATIENTS,
        heldout_patients=8,
    )
    model = LocalModel(name="tiny", folder=nowhere, digest="0" * 64, source="built")
    releasing = Releasing(context, RequestBook(tmp_path / "requests", EMAIL))
    training = Training(context, failures)
    shard = ShardStatement(
        member=context.member,
        dataset="mimic-iii",
        schema_sha256="a" * 64,
        task_sha256="b" * 64,
        tables={},
        patients=0,
        admissions=0,
        examples=0,
        heldout_examples=0,
    )
    work = StudyWork(
        context=context, releasing=releasing, training=training, prepared=prepared, model=model, shard=shard
    )
    return work, cohort.ticket(EMAIL, "train", 1, 1, members=MEMBERS, weight=1.0)


def charges(work):
    return [entry.facts for entry in work.context.ledger.entries() if entry.kind == CHARGED]


def test_a_round_is_charged_before_it_is_trained_and_the_recipe_is_not_run(tmp_path, ada):
    work, ticket = work_of(tmp_path, ada, privacy=PrivacyChoice(epsilon=8.0, notes_per_patient=2))
    raw = work._train_locally(ticket)
    ((kind, _, private, charged),) = work.training.asked
    assert (kind, charged) == ("train", 1)
    mechanism = planned_mechanism(work.context.plan, PATIENTS)
    assert private.noise_multiplier == mechanism.noise_multiplier == charges(work)[0]["noise_multiplier"]
    assert (private.sampling, private.patients, private.clip) == (mechanism.sampling, PATIENTS, 0.1)
    assert private.notes_per_patient == 2
    assert work._metrics_of_training(ticket, raw) == {"examples": 70, "heldout_loss": 2.5, "heldout_tokens": 10}


def test_a_round_that_was_interrupted_is_charged_once(tmp_path, ada):
    work, ticket = work_of(tmp_path, ada, privacy=PrivacyChoice(epsilon=8.0), failures=2)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            work._train_locally(ticket)
    work._train_locally(ticket)
    work._train_locally(ticket)  # another attempt: nothing is trained again
    assert [asked[0] for asked in work.training.asked] == ["train"] * 3
    assert len({asked[2].noise_multiplier for asked in work.training.asked}) == 1
    assert len(charges(work)) == 1


def test_over_the_budget_nothing_is_trained_and_nothing_charged(tmp_path, ada):
    work, ticket = work_of(tmp_path, ada, privacy=PrivacyChoice(epsilon=8.0), budget=1.0)
    with pytest.raises(RefusedError, match="over this domain's budget of 1") as refused:
        work._train_locally(ticket)
    assert "Nothing was run and nothing was charged" in str(refused.value)
    assert not work.training.asked
    assert not charges(work)


def test_what_was_trained_and_is_gone_is_not_trained_again(tmp_path, ada):
    work, ticket = work_of(tmp_path, ada, privacy=PrivacyChoice(epsilon=8.0))
    (work._train_locally(ticket) / "adapter_after.safetensors").unlink()
    with pytest.raises(RefusedError, match="is gone"):
        work._train_locally(ticket)
    assert len(work.training.asked) == 1


def test_with_unit_domain_the_recipe_runs_and_what_it_reports_is_not_believed(tmp_path, ada):
    work, ticket = work_of(tmp_path, ada, privacy=PrivacyChoice(unit="domain", epsilon=8.0))
    raw = work._train_locally(ticket)
    assert work.training.asked == [("train", False, None, 1)]
    assert charges(work)[0]["unit"] == "domain"
    assert work._metrics_of_training(ticket, raw) == {"examples": 70.0}
    save_state(START, work.context.folder.adapter(1))
    later = work._metrics_of_training(ticket.model_copy(update={"round": 2}), raw)
    assert later == {"examples": 70.0, "heldout_loss": 2.5, "heldout_tokens": 10}
    assert work.training.asked[-1][0] == "evaluate"


def test_without_privacy_nothing_is_charged(tmp_path, ada):
    work, ticket = work_of(tmp_path, ada, privacy=None)
    raw = work._train_locally(ticket)
    assert work.training.asked == [("train", False, None, 0)]
    assert work._metrics_of_training(ticket, raw)["train_loss"] == 1.5


def test_a_failed_training_stays_charged(tmp_path, ada):
    work, ticket = work_of(tmp_path, ada, privacy=PrivacyChoice(epsilon=8.0))

    def fail(*_, **__):
        raise TrainingError("The training code failed")

    work.training.run = fail
    with pytest.raises(TrainingError):
        work._train_locally(ticket)
    assert len(charges(work)) == 1
