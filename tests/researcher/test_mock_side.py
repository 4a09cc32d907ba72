"""Mock sides are fetched of each domain as soon as it answers; one that does not keeps none waiting."""

from types import SimpleNamespace

import pytest

from fedpriv.errors import SignatureError
from fedpriv.researcher import Researcher, mock_side
from fedpriv.researcher.mock_side import fetch_mock_sides
from fedpriv.study.plan import MemberChoice


class Session:
    """A cohort of which some answer after a while."""

    def __init__(self, answers, tmp_path):
        self.answers, self.looks, self.fetched = answers, dict.fromkeys(answers, 0), []
        self.tmp_path = tmp_path
        self.client = SimpleNamespace(dataset_manager=SimpleNamespace(get_all=self.get_all))

    def connect(self, email):
        self.looks[email] += 1
        return self.looks[email] > self.answers[email]

    def fetch_datasets(self, email):
        self.fetched.append(email)

    def get_all(self, email):
        return [
            SimpleNamespace(name="other", mock_dir="/x"),
            SimpleNamespace(name="mimic-iii", mock_dir=self.tmp_path / email),
        ]


@pytest.fixture
def cohort(members, monkeypatch):
    monkeypatch.setattr(mock_side, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(Researcher, "publish_identity", lambda researcher: None)
    monkeypatch.setattr(Researcher, "identity_of", lambda researcher, email, pinned: email)
    return [MemberChoice(email=email, fingerprint=keys.fingerprint) for email, keys in members.items()]


def fetched(researcher, cohort, **others):
    folders, words = {}, []
    told = {"on_folder": folders.__setitem__, "on_wait": lambda *said: words.append(said)}
    fetch_mock_sides(researcher, cohort, "mimic-iii", **told, **others)
    return folders, words


def test_each_is_there_as_soon_as_it_answers(researcher, cohort, tmp_path, monkeypatch):
    session = Session({"micu@x.org": 3, "sicu@x.org": 0}, tmp_path)
    monkeypatch.setattr(Researcher, "session", lambda *_: session)
    folders, words = fetched(researcher, cohort)
    assert list(folders) == session.fetched == ["sicu@x.org", "micu@x.org"]
    assert folders["micu@x.org"] == tmp_path / "micu@x.org"
    assert set(words) == {("micu@x.org", "waiting for its answer")}


def test_one_that_is_away_or_another_is_said_and_keeps_none_waiting(researcher, cohort, tmp_path, monkeypatch):
    session = Session({"micu@x.org": 10**6, "sicu@x.org": 0}, tmp_path)
    monkeypatch.setattr(Researcher, "session", lambda *_: session)
    folders, words = fetched(researcher, cohort, give_up_s=0.1)
    assert list(folders) == ["sicu@x.org"]
    assert words[-1] == ("micu@x.org", "gave up after 0 s: waiting for its answer")

    def identity_of(researcher, email, pinned):
        if email == "micu@x.org":
            raise SignatureError("The store holds other keys than the pinned ones")
        return email

    monkeypatch.setattr(Researcher, "identity_of", identity_of)
    folders, words = fetched(researcher, cohort)
    assert list(folders) == ["sicu@x.org"]
    assert "other keys than the pinned ones" in words[0][1]


def test_it_can_be_stopped(researcher, cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(Researcher, "identity_of", lambda *_: None)
    looks = iter([False, False, True])
    folders, words = fetched(researcher, cohort, stop=lambda: next(looks))
    assert folders == {}
    assert words[0] == ("micu@x.org", "waiting for its public keys on the store")
