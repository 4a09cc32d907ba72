"""wandb without a network: the files that `wandb sync` would send say what would be told."""

import importlib.util
import json
import socket
import struct

import pytest

from fedpriv.researcher.trackers.rows import MARK
from fedpriv.researcher.trackers.wandb_sink import WandbSink

pytestmark = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="the extra wandb is not installed")
_BLOCK, _HEADER, _LAST_PARTS = 32 * 1024, struct.Struct("<IHB"), (1, 4)


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_BASE_URL", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    restart()
    yield
    restart()


def restart():
    """End wandb's own process, so that all is in the files, and the variables are read anew."""
    import wandb

    wandb.teardown()


def records(path):
    """The records of a .wandb file: LevelDB's log format after seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), 7, b""
    while at + _HEADER.size <= len(data):
        if _BLOCK - at % _BLOCK < _HEADER.size:
            at += _BLOCK - at % _BLOCK
            continue
        _, size, kind = _HEADER.unpack_from(data, at)
        parts += data[at + _HEADER.size : at + _HEADER.size + size]
        at += _HEADER.size + size
        if kind in _LAST_PARTS:
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def files(story):
    restart()
    return sorted((story.folder / "wandb").glob("wandb/offline-run-*/*.wandb"))


def told(story):
    """The runs' ids, and all rows in order, over the files of all sessions."""
    ids, logged = set(), []
    for path in files(story):
        for record in records(path):
            if record.WhichOneof("record_type") == "run":
                ids.add((record.run.project, record.run.run_id, record.run.display_name))
            if record.WhichOneof("record_type") == "history":
                items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
                logged.append({name: json.loads(value) for name, value in items.items()})
    return ids, logged


def test_a_study_is_one_run_however_often_it_is_resumed(story):
    story.start()
    story.round(1)
    assert story.track(WandbSink()) == []
    story.start(resumed=True)
    story.round(2)
    story.finish()
    for _ in range(2):
        assert story.track(WandbSink()) == []
    ids, logged = told(story)
    assert ids == {("fedpriv", f"fedpriv-{story.run.study[:32]}", "icu")}
    assert [row["round"] for row in logged] == [1, 2, 3]
    assert [row[MARK] for row in logged] == [3.0, 1.5, 0.5]
    assert logged[0]["domain/sicu/heldout_loss"] == 4.0
    assert logged[2]["final/loss_before"] == 3.0


def test_nothing_is_told_but_the_numbers_and_the_plan(story):
    story.round(1)
    story.track(WandbSink())
    (path,) = files(story)
    kinds = {record.WhichOneof("record_type") for record in records(path)}
    assert (
        {"run", "history"} < kinds <= {"header", "run", "telemetry", "metric", "summary", "history", "exit", "config"}
    )
    data = path.read_bytes()
    for secret in (socket.gethostname().encode() + b"\x00", b"x.org", b"y.org", str(story.folder).encode()):
        assert secret not in data
    (run,) = [record.run for record in records(path) if record.WhichOneof("record_type") == "run"]
    assert run.host == "undisclosed"
    config = {item.key for item in run.config.update}
    assert config == {"_wandb", "study", *story.run.parameters}


def test_without_a_login_nobody_is_asked_on_the_terminal(story, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    restart()
    story.round(1)
    (event,) = story.track(WandbSink(), "wandb")
    assert event.reason == "wandb is not logged in; run `wandb login`, or set WANDB_MODE=offline"
