import signal
import time

import pytest

from fedpriv.domain import Domain, sandbox
from fedpriv.domain.dry_run import last_dry_run
from fedpriv.domain.requests import ReleaseDecision
from fedpriv.errors import LockError
from fedpriv.files import folder_lock, read_json, write_json
from fedpriv.training import ensure_model
from fedpriv.widgets import trial_process
from fedpriv.widgets.action_queue import ActionQueue
from fedpriv.widgets.owner_actions import ACTIONS, OwnerDesk
from fedpriv.widgets.trial_process import start_trial, trying
from tests.domain.conftest import ADA

needs_sandbox = pytest.mark.skipif(sandbox.bubblewrap() is None, reason="bubblewrap does not work here")


@pytest.fixture
def desk(domain):
    return OwnerDesk(domain.folder.root)


@pytest.fixture
def ask(desk, told):
    """Ask for something as a screen does, and return its answer."""
    queue = ActionQueue(ACTIONS, desk.carry_out, told)

    def ask(**action):
        count = len(told.said)
        queue.ask(action)
        return told.wait(lambda answer: answer.number > count)

    yield ask
    queue.close()


@pytest.fixture
def received(domain, code_request):
    domain.requests.receive(code_request, ADA)
    return code_request.study


def kinds(domain):
    return [entry.kind for entry in Domain.open(domain.folder.root).ledger.entries()]


def test_an_approval_has_the_limits_of_the_form(domain, ask, desk, received):
    terms = {"rounds": 2, "days": 30, "seconds": 60, "hours": "19:00-07:00", "minimum_cohort": 2, "release": False}
    metrics = ["heldout_loss", "heldout_tokens", "examples"]
    answer = ask(do="approve", study=received, terms={**terms, "metrics": metrics, "epsilon": None})
    assert answer.good
    assert "at most 2 rounds" in answer.text
    assert "The service does not run; it tells the researcher as soon as it does." in answer.text
    limits = domain.requests.decision(received).limits
    assert (limits.rounds, limits.seconds, limits.hours, limits.metrics) == (2, 60, "19:00-07:00", tuple(metrics))
    assert kinds(domain)[-1] == "request.approved"
    assert desk.changed.is_set(), "so that it is looked at at once"
    with folder_lock(domain.folder.lock_path, holder="The domain", todo="wait"):
        write_json(domain.folder.status_path, {"state": "waiting for tickets", "since_s": 1.0, "pid": 1})
        assert "does not run" not in ask(do="approve", study=received, terms={"rounds": 1}).text


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ({"do": "approve", "terms": {"rounds": 0}}, "rounds"),
        ({"do": "approve", "terms": {"rounds": "2"}}, "rounds: a whole number is needed"),
        ({"do": "approve", "terms": {"everything": True}}, "everything: there is no such setting"),
        ({"do": "approve", "terms": {"metrics": ["heldout_loss"]}}, "no round can be weighed"),
        ({"do": "approve"}, "terms: this setting is missing"),
        ({"do": "reject", "reason": ""}, "reason"),
        ({"do": "reject", "reason": "  \n"}, "reason"),
        ({"do": "revoke", "reason": "why not"}, "no approval to withdraw"),
        ({"do": "release", "adapter_sha256": "ab" * 32}, "has not asked"),
        ({"do": "erase"}, "do"),
    ],
)
def test_what_cannot_be_done_is_answered_by_a_sentence_and_changes_nothing(domain, ask, received, action, words):
    answer = ask(study=received, **action)
    assert not answer.good
    assert words in answer.text
    assert domain.requests.decision(received).decision == "pending"
    assert kinds(domain) == ["domain.created"]


def test_a_request_outside_the_limits_as_they_are_in_the_file_now_is_not_approved(domain, ask, received):
    policy = domain.config.policy.model_copy(update={"max_rounds": 1})
    domain.folder.write_config(domain.config.model_copy(update={"policy": policy}))
    answer = ask(do="approve", study=received, terms={})
    assert not answer.good
    assert "outside this domain's limits; not so: at most 1 rounds" in answer.text


def test_rejecting_and_withdrawing_give_the_reason(domain, ask, received):
    assert ask(do="reject", study=received, reason="too soon").good
    assert domain.requests.decision(received).reason == "too soon"
    assert ask(do="approve", study=received, terms={}).good
    assert not ask(do="reject", study=received, reason="no").good
    assert ask(do="revoke", study=received, reason="enough").good
    assert domain.requests.decision(received).decision == "revoked"
    assert kinds(domain)[-3:] == ["request.rejected", "request.approved", "request.revoked"]


def test_only_the_adapter_that_was_seen_is_handed_over_or_kept(domain, ask, received):
    ask(do="approve", study=received, terms={})
    asked = ReleaseDecision(decision="pending", adapter_sha256="ab" * 32, asked_s=5.0)
    domain.requests.decide_release(received, asked)
    for action in ({"do": "release"}, {"do": "withhold", "reason": "no"}):
        answer = ask(study=received, adapter_sha256="cd" * 32, **action)
        assert not answer.good
        assert "another adapter" in answer.text
    assert domain.requests.release(received) == asked
    assert ask(do="withhold", study=received, adapter_sha256="ab" * 32, reason="not yet").good
    assert domain.requests.release(received).decision == "withheld"
    assert ask(do="release", study=received, adapter_sha256="ab" * 32).good
    assert domain.requests.release(received).decision == "approved"


def test_what_is_open_changes_without_a_word(ask, desk, received):
    assert ask(do="open", study=received).text == ""
    ask(do="read", file="plan.yaml", line=3)
    ask(do="compare", change="stock:train.py", page=2)
    assert desk.opened.model_dump() == {
        "study": received,
        "file": "plan.yaml",
        "file_line": 3,
        "file_page": 0,
        "change": "stock:train.py",
        "change_page": 2,
    }
    ask(do="open", study="")
    assert (desk.opened.study, desk.opened.file) == ("", "")
    assert not ask(do="open", study="../x").good


def test_verifying_finds_a_change_and_a_cut_off_end(domain, ask, desk):
    for number in range(3):
        domain.ledger.append("round.started", study="a" * 64, round=number)
    answer = ask(do="verify")
    assert answer.good
    assert "whole: 4 entries" in answer.text
    assert (desk.verified.whole, desk.verified.entries) == (True, 4)
    lines = domain.folder.ledger_path.read_bytes().splitlines(keepends=True)
    domain.folder.ledger_path.write_bytes(b"".join(lines[:3]))
    answer = ask(do="verify")
    assert not answer.good
    assert "its end was cut off" in answer.text
    assert not desk.verified.whole
    domain.folder.ledger_path.write_bytes(b"".join(lines).replace(b'"round":1', b'"round":7'))
    assert "Entry 3 of the ledger was changed" in ask(do="verify").text
    domain.folder.ledger_path.write_bytes(b"".join(lines))
    assert ask(do="verify").good, "what was verified first is still looked for"


# -- dry runs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    ensure_model("tiny", cache=folder)
    return folder


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@needs_sandbox
def test_a_dry_run_goes_on_by_itself_while_other_things_are_done(domain, ask, received, cache, monkeypatch):
    monkeypatch.setenv("FEDPRIV_CACHE", str(cache))
    ask(do="approve", study=received, terms={})
    assert ask(do="try", study=received).good
    seen = trying(domain.folder)
    assert (seen.study, seen.running, seen.problem) == (received, True, "")
    answer = ask(do="try", study=received)
    assert not answer.good
    assert "A dry run or an audit of this domain goes on" in answer.text
    assert ask(do="revoke", study=received, reason="enough").good
    assert trying(domain.folder).running, "and it is still being tried"
    steps = set()
    wait_for(lambda: (now := trying(domain.folder)) is None or (steps.add((now.step, now.steps)) or False))
    assert last_dry_run(domain, received).outcome == "passed"
    assert (0, 0) in steps
    assert steps <= {(0, 0), (1, 2), (2, 2)}
    assert kinds(domain)[-1] == "request.tried"


def test_a_dry_run_that_cannot_be_done_says_why(domain, received, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDPRIV_CACHE", str(tmp_path / "cache"))
    resources = domain.config.resources.model_copy(update={"sandbox": "off"})
    domain.folder.write_config(domain.config.model_copy(update={"resources": resources}))
    with start_trial(domain, received, "try") as process:
        process.wait(60)
    seen = trying(domain.folder)
    assert not seen.running
    assert "There is no sandbox here" in seen.problem
    assert "Next: install bubblewrap" in seen.problem
    assert last_dry_run(domain, received) is None


def test_a_mistake_of_ours_in_a_dry_run_is_a_sentence_with_its_details_in_a_file(domain, received, monkeypatch, capsys):
    monkeypatch.setattr("fedpriv.domain.dry_run.dry_run", lambda *a, **k: 1 / 0)
    trial_process.main(domain.folder.root, received, "try")
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert "fedpriv itself made a mistake (ZeroDivisionError)" in trying(domain.folder).problem


def test_a_killed_dry_run_is_told_and_does_not_stand_in_the_way(domain, received):
    with start_trial(domain, received, "try") as process:
        with pytest.raises(LockError):
            start_trial(domain, received, "try")
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        seen = trying(domain.folder)
        assert (seen.running, seen.study) == (False, received)
        assert "ended from outside" in seen.problem
    with start_trial(domain, received, "try") as process:
        process.kill()


def test_a_broken_progress_file_is_none(domain):
    path = domain.folder.state / "trying.json"
    for text in ("", "[]", '{"study": 1}', '{"study": "a", "started_s": "x"}'):
        path.write_text(text)
        assert trying(domain.folder) is None
    write_json(path, {"study": "a", "started_s": 1.0, "problem": "It broke."})
    assert trying(domain.folder).problem == "It broke."
    assert read_json(path)["study"] == "a"
    assert path.stat().st_mode & 0o777 == 0o600
