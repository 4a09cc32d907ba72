"""Code chooses how it fails: what of that leaves a domain, and how often."""

import pytest

from fedpriv.domain.tickets import _MOST_FAILURES, failure
from fedpriv.errors import FedprivError, RefusedError, TrainingError
from fedpriv.study.privacy import PrivacyChoice
from tests.domain.test_private_training import EMAIL, charges, work_of

LINE = "The training code failed: The recipe failed with KeyError in line {} of train.py"


def told(work, ticket, times):
    """What the researcher reads of so many tickets, whose code spells something with the lines of its failures."""
    answers = []
    for number in range(times):

        def run(*_, line=number, **__):
            raise TrainingError(LINE.format(line))

        work.training.run = run
        asked = ticket.model_copy(update={"retry": number})
        try:
            work.carry_out(asked, "0" * 64)
        except FedprivError as error:
            answers.append(failure(asked, "0" * 64, EMAIL, error))
    return answers


@pytest.mark.parametrize("private", [False, True])
def test_after_some_failures_in_a_round_the_data_owner_is_asked(tmp_path, ada, private):
    privacy = PrivacyChoice(epsilon=8.0, unit="domain") if private else None
    work, ticket = work_of(tmp_path, ada, privacy=privacy)
    answers = told(work, ticket, _MOST_FAILURES + 3)
    assert [answer.status for answer in answers] == ["failed"] * _MOST_FAILURES + ["refused"] * 3
    lines = {answer.reason for answer in answers if "line" in answer.reason}
    assert len(lines) == (0 if private else _MOST_FAILURES)
    assert f"failed {_MOST_FAILURES} times in round 1" in answers[-1].reason
    assert "approve the request again" in answers[-1].reason
    kept = [entry.facts["reason"] for entry in work.context.ledger.entries() if entry.kind == "round.stopped"]
    assert len({reason for reason in kept if "line" in reason}) == _MOST_FAILURES, "the data owner sees all of it"
    assert len(charges(work)) == int(private)


def test_an_approval_lets_it_try_again(tmp_path, ada):
    work, ticket = work_of(tmp_path, ada, privacy=None)
    told(work, ticket, _MOST_FAILURES)
    with pytest.raises(RefusedError):
        work.carry_out(ticket, "0" * 64)
    work.context.ledger.append("request.approved", study=ticket.study)
    assert told(work, ticket, 1)[0].status == "failed"


def test_the_stock_recipe_may_be_tried_until_the_machine_lets_it(tmp_path, ada, monkeypatch):
    monkeypatch.setattr("fedpriv.domain.tickets.is_stock", lambda *_, **__: True)
    work, ticket = work_of(tmp_path, ada, privacy=None)
    assert {answer.status for answer in told(work, ticket, _MOST_FAILURES + 2)} == {"failed"}


def test_failures_of_another_round_do_not_count(tmp_path, ada):
    work, ticket = work_of(tmp_path, ada, privacy=None)
    for _ in range(_MOST_FAILURES):
        work.context.ledger.append("round.stopped", study=ticket.study, round=7, error="TrainingError")
        work.context.ledger.append("round.stopped", study="1" * 64, round=1, error="TrainingError")
        work.context.ledger.append("round.stopped", study=ticket.study, round=1, error="RevokedError")
    assert told(work, ticket, 1)[0].status == "failed"
