"""What a job tried and why it ended stands in the data owner's ledger, and is said to them."""

import json

import pytest

from fedpriv.domain.runner import JobReport
from fedpriv.errors import RevokedError, TrainingError
from fedpriv.training.adapter import save_state
from tests.domain.cohort import START
from tests.domain.conftest import approved
from tests.domain.test_private_training import EMAIL, work_of


def running(work, *, tried=(), error=None):
    """Have a job try things and end with an error, or well."""

    def run(
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
        work.training.report = JobReport(tried=set(tried))
        watch()
        if error is not None:
            raise error
        (output / "metrics.json").write_text(json.dumps({"examples": 70, "heldout_loss": 2.5, "heldout_tokens": 10}))
        save_state(START, output / "adapter_after.safetensors")

    work.training.run = run


def facts(work, kind):
    return [entry.facts for entry in work.context.ledger.entries() if entry.kind == kind]


def test_attempts_are_recorded_and_said(tmp_path, ada):
    work, ticket = work_of(tmp_path, ada, privacy=None)
    said = []
    work.context.notify = said.append
    running(work, tried=("network", "processes"))
    work._train_locally(ticket)
    assert facts(work, "code.tried") == [{"study": ticket.study, "round": 1, "what": ["network", "processes"]}]
    assert "network, processes" in said[0]
    assert facts(work, "round.trained")[0]["sandbox"] == "none"


def test_without_attempts_there_is_no_such_entry(tmp_path, ada):
    work, ticket = work_of(tmp_path, ada, privacy=None)
    running(work)
    work._train_locally(ticket)
    assert facts(work, "code.tried") == []


def test_a_job_that_failed_is_recorded_with_its_reason_and_its_attempts(tmp_path, ada):
    work, ticket = work_of(tmp_path, ada, privacy=None)
    running(work, tried=("signals",), error=TrainingError("The training was ended: it wrote more than 4 GB"))
    with pytest.raises(TrainingError):
        work._train_locally(ticket)
    assert "wrote more than 4 GB" in facts(work, "round.stopped")[0]["reason"]
    assert facts(work, "code.tried")[0]["what"] == ["signals"]
    assert facts(work, "round.trained") == []


def test_the_approval_is_looked_at_while_the_job_runs(tmp_path, ada):
    work, ticket = work_of(tmp_path, ada, privacy=None)
    running(work)
    decision = approved(work.context.stored.request, EMAIL, rounds=9, expires_s=1.0)
    work.context.decision = lambda: decision
    with pytest.raises(RevokedError, match="The approval ended"):
        work._train_locally(ticket)
    assert "The approval ended" in facts(work, "round.stopped")[0]["reason"]
