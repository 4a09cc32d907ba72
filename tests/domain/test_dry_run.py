import os
import stat

import pytest

from fedpriv.domain import sandbox
from fedpriv.domain.dry_run import MOST_LOG_LINES, dry_run, last_dry_run
from fedpriv.domain.log_tail import last_lines
from fedpriv.errors import LockError, RefusedError
from fedpriv.files import folder_lock
from fedpriv.study import CodeRequest, TaskChoice
from fedpriv.study.plan import TrainingChoice
from fedpriv.training.recipe import stock_recipe
from tests.domain.conftest import ADA

pytestmark = pytest.mark.skipif(sandbox.bubblewrap() is None, reason="bubblewrap does not work here")

HEAD = "from fedpriv.training import LocalOutcome, train_local\n\ndef train(context):\n"


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tried(domain, plan, cache):
    """Try a recipe; return what it showed and the steps it reported."""

    def run(recipe=None, **changes):
        training = TrainingChoice(rounds=3, steps=50, batch_size=2)
        request = CodeRequest.new(plan.model_copy(update={"training": training, **changes}), recipe or stock_recipe())
        domain.requests.receive(request, ADA)
        steps = []
        result = dry_run(domain, domain.requests.get(request.study), lambda *step: steps.append(step), cache=cache)
        return result, steps

    return run


def test_the_stock_recipe_passes_and_is_measured_and_nothing_of_a_killed_dry_run_stays(domain, tried):
    left = domain.folder.state / "tries" / "study"
    left.mkdir(parents=True)
    (left / "old").write_text("of a killed one")
    result, steps = tried()
    assert (result.outcome, result.reason, result.tried, result.steps) == ("passed", "", (), 2)
    assert "bubblewrap" in result.walls
    assert steps == [(1, 2), (2, 2)]
    assert set(result.metrics) == {"train_loss", "train_tokens", "examples"}
    assert result.examples == result.metrics["examples"] > 10
    assert result.peak_memory_bytes > 50 * 2**20
    assert result.seconds > 0
    assert result.round_s > 0
    assert last_dry_run(domain, result.study) == result
    assert stat.S_IMODE(domain.requests.dry_run_path(result.study).stat().st_mode) == 0o600
    (entry,) = [entry for entry in domain.ledger.entries() if entry.kind == "request.tried"]
    assert entry.facts == {"study": result.study, "outcome": "passed", "walls": result.walls, "tried": []}
    assert not (domain.folder.state / "tries").exists()
    domain.requests.dry_run_path(result.study).write_text("{}")
    assert last_dry_run(domain, result.study) is None, "a kept result that was damaged is none"


def test_a_task_is_tried_on_mock_examples_of_its_own(domain, tried):
    result, _ = tried(HEAD + "    print(context.train.read_text()[:4000])\n    return train_local(context)\n")
    assert not any("questions" in line for line in result.log)
    asks = HEAD + "    print('questions' in context.train.read_text())\n    return train_local(context)\n"
    result, _ = tried(asks, task=TaskChoice(kind="mortality"))
    assert (result.outcome, result.reason) == ("passed", "")
    assert result.log[0] == "True"
    assert result.examples > 50


def test_no_patient_s_data_can_be_seen_by_the_code(domain, tried, tmp_path):
    for place in (domain.folder.data / "real", tmp_path / "tables"):
        place.mkdir(parents=True)
        (place / "train.jsonl").write_text('{"text": "a real patient"}\n')
    places = [domain.folder.data, tmp_path / "tables", domain.folder.identity_path, domain.folder.ledger_path]
    places += [domain.folder.requests, domain.folder.state / "mock", domain.folder.config_path]
    result, _ = tried(
        HEAD + f"    from pathlib import Path\n    for place in {[str(place) for place in places]}:\n"
        "        print(Path(place).exists(), place)\n"
        "    print(context.train.read_text()[:20], len(list(context.train.parent.iterdir())))\n"
        "    return train_local(context)\n"
    )
    assert result.outcome == "passed"
    assert [line.split()[0] for line in result.log[: len(places)]] == ["False"] * len(places)
    seen = result.log[len(places)]
    assert seen.startswith('{"patient": ')
    assert seen.endswith(" 2"), "the two mock files and nothing else"
    assert seen[:20] in (domain.folder.state / "mock" / "examples.jsonl").read_text()


def test_what_the_gatekeeper_would_stop_is_said_and_the_log_is_short_and_harmless(tried):
    result, _ = tried(
        HEAD + "    outcome = train_local(context)\n    for n in range(100):\n"
        "        print(n, chr(27) + '[2J', '[bold]x')\n"
        "    return LocalOutcome(adapter_after=outcome.adapter_after, metrics={'age': 63.0, **outcome.metrics})\n"
    )
    assert (result.outcome, result.metrics) == ("refused", {})
    assert result.reason == "The training code reports a metric that fedpriv does not know"
    assert len(result.log) == MOST_LOG_LINES
    assert "99 <U+001B>[2J [bold]x" in result.log
    assert all(line.isprintable() for line in result.log)


def test_a_failure_is_said_with_its_line(tried):
    result, _ = tried(HEAD + "    raise ValueError('patient 7')\n")
    assert result.outcome == "failed"
    assert result.reason == "The training code failed: The recipe failed with ValueError in line 4 of train.py"
    assert result.round_s is None
    assert any("patient 7" in line for line in result.log), "the data owner sees it"


def test_a_log_that_was_replaced_is_not_read(domain, tried, tmp_path):
    code = (
        "    import os\n    log = os.readlink('/proc/self/fd/1')\n    os.unlink(log)\n"
        f"    try:\n        os.symlink({str(domain.folder.identity_path)!r}, log)\n"
        "    except OSError:\n        pass  # a wall forbids it\n    return train_local(context)\n"
    )
    result, _ = tried(HEAD + code)
    assert (result.reason, result.log) == ("", ())
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "nothing"):
        assert last_lines(path, MOST_LOG_LINES) == ()


def test_an_endless_loop_is_ended(domain, plan, cache, monkeypatch):
    monkeypatch.setattr("fedpriv.domain.runner._GRACE_SECONDS", 1)
    request = CodeRequest.new(plan, HEAD + "    while True: pass\n")
    domain.requests.receive(request, ADA)
    result = dry_run(domain, domain.requests.get(request.study), lambda *_: None, cache=cache, max_seconds=5)
    assert result.outcome == "failed"
    assert "took longer than 6 s" in result.reason


@pytest.mark.parametrize("setting", ["off", "preferred"])
def test_without_a_sandbox_nothing_runs_unless_asked_for(domain, code_request, cache, monkeypatch, setting):
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: None)
    resources = domain.config.resources.model_copy(update={"sandbox": setting})
    object.__setattr__(domain, "config", domain.config.model_copy(update={"resources": resources}))
    domain.requests.receive(code_request, ADA)
    stored = domain.requests.get(code_request.study)
    with pytest.raises(RefusedError, match="no sandbox here"):
        dry_run(domain, stored, lambda *_: None, cache=cache)
    assert last_dry_run(domain, code_request.study) is None
    if setting == "off":
        result = dry_run(domain, stored, lambda *_: None, cache=cache, without_sandbox=True)
        assert (result.outcome, "bubblewrap" in result.walls) == ("passed", False)


def test_one_dry_run_at_a_time(domain, code_request, cache):
    domain.requests.receive(code_request, ADA)
    stored = domain.requests.get(code_request.study)
    with folder_lock(domain.folder.state / "try.lock", holder="x", todo="y"), pytest.raises(LockError):
        dry_run(domain, stored, lambda *_: None, cache=cache)
    assert last_dry_run(domain, stored.request.study) is None
