import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import UntrustedError
from fedpriv.researcher.events import DomainProgress, ResultReceived, Waiting
from fedpriv.researcher.history import History
from fedpriv.study import Progress
from tests.researcher.event_strategies import any_of, events, kept_classes

STUDY = "0" * 64


def waiting(domain="micu@x.org"):
    return Waiting(study=STUDY, domain=domain, what="approval")


def test_events_are_appended_and_progress_is_not(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history(waiting())
    progress = Progress(study=STUDY, round=1, state="training", step=1, steps=4)
    history(DomainProgress(study=STUDY, domain="micu@x.org", progress=progress))
    history(ResultReceived(study=STUDY, domain="micu@x.org", kind="train", round=1, metrics={"a": 1.5}, seconds={}))
    assert [record["event"] for record in history.records()] == ["Waiting", "ResultReceived"]
    assert history.records()[1]["metrics"] == {"a": 1.5}


def test_half_a_line_of_a_kill_is_dropped(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    history(waiting())
    with path.open("ab") as stream:
        stream.write(b'{"event": "Roun')
    assert len(history.records()) == 1
    history(waiting("sicu@x.org"))
    assert [json.loads(line)["domain"] for line in path.read_text().splitlines()] == ["micu@x.org", "sicu@x.org"]


@pytest.mark.parametrize("cls", kept_classes())
def test_an_event_of_any_class_is_read_back_as_it_was(tmp_path_factory, cls):
    @given(any_of(cls))
    @settings(max_examples=20, deadline=None)
    def check(event):
        history = History(tmp_path_factory.mktemp("history") / "h.jsonl")
        history(event)
        (again,) = history.events(pytest.fail)
        assert type(again) is cls
        assert again == event

    check()


@given(st.data(), st.lists(events(), min_size=1, max_size=4), events())
@settings(max_examples=60, deadline=None)
def test_whatever_byte_a_kill_cut_at_the_whole_lines_are_kept(tmp_path_factory, data, before, after):
    path = tmp_path_factory.mktemp("history") / "h.jsonl"
    history = History(path)
    for event in before:
        history(event)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = before[: whole[:cut].count(b"\n")]
    assert list(history.events(pytest.fail)) == kept
    history(after)
    assert list(history.events(pytest.fail)) == [*kept, after]


def test_a_half_line_longer_than_a_block_is_dropped(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    history(waiting())
    with path.open("ab") as stream:
        stream.write(b'{"event": "' + b"x" * 200_000)
    history(waiting("sicu@x.org"))
    assert [event.domain for event in history.events()] == ["micu@x.org", "sicu@x.org"]


def test_records_of_a_newer_version_are_skipped_with_one_note_a_kind(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    history(waiting())
    newer = {"event": "Teleported", "study": STUDY, "time_s": 1.0}
    more = json.loads(path.read_text()) | {"since_s": 3.0}
    less = {"event": "Decided", "study": STUDY, "time_s": 1.0, "domain": "micu@x.org"}
    path.write_text("".join(json.dumps(record) + "\n" for record in (newer, newer, more, less)))
    notes = []
    assert [event.domain for event in history.events(notes.append)] == ["micu@x.org"]
    assert [note.partition(" in ")[0] for note in notes] == ["Records of Teleported", "Records of Decided"]
    assert "does not know it" in notes[0]
    assert "decision: this setting is missing" in notes[1]
    assert len(history.records()) == 4
    with pytest.warns(UserWarning) as warned:
        list(history.events())
    assert len(warned) == 2


@pytest.mark.parametrize("line", [b"[1]\n", b"{\n", b'{"a": NaN}\n', b"\xff\n"])
def test_a_whole_line_that_is_no_event_is_named(tmp_path, line):
    path = tmp_path / "history.jsonl"
    path.write_bytes(line)
    with pytest.raises(UntrustedError, match=r"history\.jsonl"):
        list(History(path).events())


def test_following_sees_what_is_appended_up_to_the_end(tmp_path):
    history = History(tmp_path / "history.jsonl")
    turns = iter([True, True, False])

    def more():
        turn = next(turns)
        history(waiting(f"{'last' if not turn else 'next'}@x.org"))  # appended while the follower waits
        return turn

    assert [event.domain for event in history.follow(more)] == ["next@x.org", "next@x.org", "last@x.org"]


def test_a_follower_waits_for_the_rest_of_a_line(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    history(waiting())
    line = path.read_bytes()
    path.write_bytes(line[:20])
    turns = iter([True, False])

    def more():
        turn = next(turns)
        if turn:
            path.write_bytes(line)
        return turn

    assert [event.domain for event in history.follow(more)] == ["micu@x.org"]


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    history(waiting())
    line = path.read_bytes()
    path.write_bytes(line * 20_000)  # 2.4 MB
    next(history.events())
    tracemalloc.start()
    try:
        assert sum(1 for _ in history.events()) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.2 * len(line) * 20_000
