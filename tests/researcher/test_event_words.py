import dataclasses

from hypothesis import given

from fedpriv.researcher.event_words import _WORDS, sentence, who, words
from fedpriv.researcher.events import Decided, Event, KeyRenewed, ResultReceived, TrackerStopped
from tests.researcher.event_strategies import events

STUDY = "0" * 64


@given(events())
def test_every_event_has_words(event):
    said = f"{who(event)}: {words(event)}" if who(event) else words(event)
    assert sentence(event) == said
    if all(vars(event).values()):
        assert words(event)


def test_every_class_of_ours_that_has_words_is_an_event():
    assert all(issubclass(cls, Event) for cls in _WORDS)


def test_what_is_said():
    decided = Decided(study=STUDY, domain="micu@x.org", decision="rejected", reason="too many rounds", checked=())
    assert sentence(decided) == "micu@x.org: rejected: too many rounds"
    result = ResultReceived(study=STUDY, domain="micu@x.org", kind="train", round=2, metrics={}, seconds={})
    assert sentence(result) == "micu@x.org: train done, round 2"
    renewed = KeyRenewed(study=STUDY, generation=2, round=3, retired_by=("a@x.org", "b@x.org"))
    assert sentence(renewed) == "a new study key was made; round 3 is summed again (a@x.org, b@x.org refused its sum)"
    stopped = TrackerStopped(study=STUDY, tracker="wandb", reason="no route")
    assert sentence(stopped) == "wandb gets no more: no route; the study goes on without it"


def test_an_event_that_is_new_is_named_with_its_fields():
    fields = [("domain", str), ("round", int), ("late_s", float), ("shares", dict), ("why", str)]
    new = dataclasses.make_dataclass("RoundSkippedByDomain", fields, bases=(Event,), frozen=True, kw_only=True)
    event = new(study=STUDY, domain="a@x.org", round=3, late_s=1.23456789, shares={"b": 0.5}, why="")
    assert sentence(event) == "a@x.org: round skipped by domain (round 3, late s 1.23457, shares b 0.5)"
    assert sentence(
        dataclasses.make_dataclass("Paused", [], bases=(Event,), kw_only=True, frozen=True)(study=STUDY)
    ) == ("paused")
