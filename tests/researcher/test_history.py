import json

from fedpriv.researcher.events import DomainProgress, ResultReceived, Waiting
from fedpriv.researcher.history import History
from fedpriv.study import Progress

STUDY = "0" * 64


def test_events_are_appended_and_progress_is_not(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history(Waiting(study=STUDY, domain="micu@x.org", what="approval"))
    progress = Progress(study=STUDY, round=1, state="training", step=1, steps=4)
    history(DomainProgress(study=STUDY, domain="micu@x.org", progress=progress))
    history(ResultReceived(study=STUDY, domain="micu@x.org", kind="train", round=1, metrics={"a": 1.5}, seconds={}))
    assert [record["event"] for record in history.records()] == ["Waiting", "ResultReceived"]
    assert history.records()[1]["metrics"] == {"a": 1.5}


def test_half_a_line_of_a_kill_is_dropped(tmp_path):
    path = tmp_path / "history.jsonl"
    history = History(path)
    history(Waiting(study=STUDY, domain="micu@x.org", what="approval"))
    with path.open("ab") as stream:
        stream.write(b'{"event": "Roun')
    assert len(history.records()) == 1
    history(Waiting(study=STUDY, domain="sicu@x.org", what="approval"))
    assert [json.loads(line)["domain"] for line in path.read_text().splitlines()] == ["micu@x.org", "sicu@x.org"]
