import pytest

from fedpriv.researcher.events import ResultReceived, RoundFinished, StudyFinished, StudyStarted
from fedpriv.researcher.history import History
from fedpriv.researcher.trackers import TrackedRun, Tracker, tracking

STUDY = "ab" * 32
DOMAINS = ("micu@x.org", "sicu@y.org")


class Story:
    """A study whose history grows as a test says."""

    def __init__(self, folder):
        self.folder = folder
        self.history = History(folder / "history.jsonl")
        self.clock = 1_700_000_000.0
        self.run = TrackedRun(
            study=STUDY,
            name="icu",
            folder=folder,
            labels={"micu@x.org": "micu", "sicu@y.org": "sicu"},
            parameters={"domains": "micu, sicu", "training.rounds": 3, "lora.targets": '["q_proj"]', "title": "a | b"},
        )

    def happen(self, cls, **fields):
        self.clock += 1.25
        event = cls(study=STUDY, time_s=self.clock, **fields)
        self.history(event)
        return event

    def start(self, resumed=False):
        return self.happen(StudyStarted, domains=DOMAINS, rounds=3, resumed=resumed)

    def trained(self, number, kind="train", loss=None):
        for place, domain in enumerate(DOMAINS):
            metrics = {"heldout_loss": loss or 3.0 / number + place, "examples": 10.0 + place}
            self.happen(
                ResultReceived, domain=domain, kind=kind, round=number, metrics=metrics, seconds={"train": 1.0 + place}
            )

    def summed(self, number, attempt=1):
        return self.happen(
            RoundFinished,
            round=number,
            attempt=attempt,
            train_loss=2.0 / number,
            heldout_loss=3.0 / number + attempt - 1,
            weights={"micu@x.org": 0.25, "sicu@y.org": 0.75},
            bytes_up=1000,
            bytes_down=2000,
            parameters=500,
            seconds={"train": 1.5, "wall": 9.0},
        )

    def round(self, number):
        self.trained(number)
        return self.summed(number)

    def finish(self):
        return self.happen(
            StudyFinished,
            loss_before=3.0,
            loss_after=0.5,
            loss_after_by_domain={"micu@x.org": 0.4, "sicu@y.org": 0.6},
            heldout_tokens={"micu@x.org": 10.0, "sicu@y.org": 10.0},
            adapter_sha256="0" * 64,
            seconds={},
        )

    def track(self, sink, name="sink"):
        """Report what happened so far, as a run of the study does, and return what it told of failures."""
        told = []
        with Tracker(name, sink, self.run, self.history, told.append):
            pass
        return told


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A machine at work imports slowly; how long is waited decides no test."""
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 250.0)


@pytest.fixture
def story(tmp_path):
    return Story(tmp_path)
