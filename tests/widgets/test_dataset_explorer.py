"""What can be known of a cohort's data: mock sides and statements, and never anything else."""

import json
import threading
from dataclasses import replace

import pytest

pytest.importorskip("anywidget")

from fedpriv.clinical import write_mock
from fedpriv.clinical.mock_reading import read_mock
from fedpriv.clinical.statement import needed_columns
from fedpriv.errors import ConfigError, StudyError
from fedpriv.study import TaskChoice
from fedpriv.study.plan import MemberChoice
from fedpriv.study.shard import ShardStatement
from fedpriv.widgets import explorer
from fedpriv.widgets.dataset_explorer import DatasetExplorer
from fedpriv.widgets.explorer_state import of_cohort, with_mock, with_statements, with_text, with_words
from fedpriv.widgets.explorer_view import view_of
from fedpriv.widgets.mock_child import MockChild, News, Wish
from tests.widgets.test_round_control import Told, ask

EMAILS = ("micu@x.org", "sicu@x.org")


@pytest.fixture(scope="session")
def sides(tmp_path_factory):
    found = {}
    for seed, email in enumerate(EMAILS):
        folder = tmp_path_factory.mktemp("mock") / "mock"
        write_mock(folder, seed=seed)
        found[email] = read_mock(folder)
    return found


def statement(email, **changes):
    tables = {"PATIENTS": ("subject_id", "gender"), "NOTEEVENTS": ("text",)}
    facts = {"member": email, "dataset": "mimic-iii", "schema_sha256": "a" * 64, "task_sha256": "b" * 64}
    counts = {"patients": 150, "admissions": 200, "examples": 170, "heldout_examples": 0}
    return ShardStatement(**facts | counts | {"tables": tables} | changes)


@pytest.fixture
def state(sides):
    state = of_cohort("mimic-iii", EMAILS)
    for email, side in sides.items():
        state = with_mock(state, email, side)
    return state


# -- state and view ----------------------------------------------------------------------------------------------------


def test_domains_stand_beside_each_other(state, sides):
    view = view_of(state)
    assert [domain["mock"] for domain in view["domains"]] == [
        f"{len(side.lengths)} texts of {side.patients} made-up patients" for side in sides.values()
    ]
    charts = {chart["title"]: chart for chart in view["charts"]}
    assert set(charts) == {"length of texts", "first care unit", "sex", "type of admission"}
    for chart in charts.values():
        assert [row["name"] for row in chart["rows"]] == ["micu", "sicu"]
        assert all(len(row["values"]) == len(chart["parts"]) for row in chart["rows"])
    assert [sum(row["values"]) for row in charts["sex"]["rows"]] == [24, 24]
    lengths = charts["length of texts"]
    assert [sum(row["values"]) for row in lengths["rows"]] == [len(side.lengths) for side in sides.values()]
    assert all(part.endswith(" words") for part in lengths["parts"])
    assert len(json.dumps(view)) < 100_000
    assert not view["alike"]
    assert view_of(with_mock(state, "sicu@x.org", sides["micu@x.org"]))["alike"]


def test_a_domain_that_has_not_answered_says_so(sides):
    state = with_words(of_cohort("mimic-iii", EMAILS), "sicu@x.org", "waiting for its answer\x1b[2J")
    state = with_mock(state, "micu@x.org", sides["micu@x.org"])
    domains = {domain["name"]: domain for domain in view_of(state)["domains"]}
    assert domains["sicu"]["words"] == "waiting for its answer<U+001B>[2J"
    assert domains["sicu"]["mock"] is None
    assert [row["name"] for row in view_of(state)["charts"][0]["rows"]] == ["micu"]
    assert with_mock(state, "nobody@x.org", sides["micu@x.org"]) == state


def test_statements_are_coarse_and_stand_in_the_schema(state):
    told = {"micu@x.org": statement("micu@x.org"), "sicu@x.org": statement("sicu@x.org", tables={"PATIENTS": ()})}
    state = replace(with_statements(state, told), needed=needed_columns(TaskChoice(), {}))
    view = view_of(state)
    assert view["domains"][0]["told"][:2] == [("patients", "about 150"), ("admissions", "about 200")]
    assert view["domains"][0]["told"][3] == ("held-out examples", "under 10")
    assert any("sicu@x.org without NOTEEVENTS" in words for words in view["differences"])
    patients = next(table for table in view["tables"] if table["name"] == "PATIENTS")
    gender = next(column for column in patients["columns"] if column["name"] == "gender")
    assert [cell[1] for cell in gender["cells"]] == ["mostly filled", "mostly empty"]
    assert gender["needed"]
    other = next(column for column in patients["columns"] if column["name"] == "row_id")
    assert [cell[1] for cell in other["cells"]] == ["", ""], "the common record has no such column"
    assert view_of(with_statements(state, {"nobody@x.org": statement("nobody@x.org")})) == view


def test_texts_are_shown_one_by_one_with_every_character_visible(state, sides):
    view = view_of(with_text(state, "sicu@x.org", 1))
    assert view["sample"]["lines"][0] in sides["sicu@x.org"].texts[1]
    assert (view["sample"]["name"], view["sample"]["number"]) == ("sicu", 1)
    for domain, number in (("sicu@x.org", 10**6), ("nobody@x.org", 0), ("sicu@x.org", -1)):
        with pytest.raises(StudyError, match="no such sample"):
            with_text(state, domain, number)
    hostile = replace(sides["micu@x.org"], texts=("<script>\x1b\u202e" + "x" * 20_000,))
    sample = view_of(with_text(with_mock(state, "micu@x.org", hostile), "micu@x.org", 0))["sample"]
    assert sample["lines"][0].startswith("<script><U+001B><U+202E>")
    assert sample["cut"]
    assert len(sample["lines"][0]) <= 4000


def test_answers_are_counted_by_domain(state, tmp_path):
    write_mock(tmp_path / "mock", seed=0, task=TaskChoice(kind="mortality"))
    view = view_of(with_mock(state, "micu@x.org", read_mock(tmp_path / "mock")))
    ((question, cells),) = view["answers"]["rows"]
    assert "die" in question
    assert cells[0].endswith(" of 96") or " of " in cells[0]
    assert cells[1] == ""


# -- the panel ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cohort(members):
    return [MemberChoice(email=email, fingerprint=keys.fingerprint) for email, keys in members.items()]


@pytest.fixture
def opened(monkeypatch, sides):
    """Open panels whose child process says what it is told to."""
    said, panels = [News(domain=email, mock=side) for email, side in sides.items()], []

    class Child:
        def __init__(self, wish):
            self.wish = wish

        def news(self):
            yield from said

        def stop(self):
            pass

    monkeypatch.setattr(explorer, "MockChild", Child)

    def opened(*arguments, news=None, **parameters):
        said[:] = said if news is None else news
        panels.append(DatasetExplorer(*arguments, **parameters))
        return panels[-1]

    yield opened
    for panel in panels:
        panel.close()


def test_the_panel_shows_what_comes_in_other_threads(opened, researcher, cohort):
    panel = opened(researcher, cohort)
    told = Told(panel)
    told.wait(lambda: not panel.view["looking"] and panel.view["sample"])
    ask(panel, do="text", domain="sicu@x.org", number=2)
    told.wait(lambda: panel.view["sample"]["number"] == 2 and panel.answer)
    assert panel.answer["text"] == "Text 3 of sicu@x.org, made up."
    ask(panel, do="text", domain="sicu@x.org", number=999)
    told.wait(lambda: not panel.answer["good"])
    ask(panel, do="look")
    told.wait(lambda: panel.answer["do"] == "look" and panel.answer["good"])
    assert threading.main_thread() not in told.threads
    assert "micu@x.org" in panel.as_text()
    assert "made up" in panel.as_text()


def test_of_a_study_the_statements_are_shown(opened, study, members):
    from fedpriv.study import Signed

    body = statement("micu@x.org").model_dump(mode="json")
    study.folder.keep_shard(Signed.model_construct(payload=body, signature="A" * 86 + "=="), "micu@x.org")
    panel = opened(study)
    told = Told(panel)
    told.wait(lambda: not panel.view["looking"])
    assert panel.view["domains"][0]["told"][0] == ("patients", "about 150")


def test_what_a_child_cannot_say_is_a_sentence(opened, researcher, cohort):
    panel = opened(researcher, cohort, news=[News(domain="micu@x.org", words="waiting for its answer")])
    told = Told(panel)
    told.wait(lambda: not panel.view["looking"])
    assert panel.view["domains"][0]["words"] == "waiting for its answer"
    with pytest.raises(ConfigError, match="No domain"):
        DatasetExplorer(researcher)


def test_the_real_child_says_what_it_waits_for_and_is_ended(researcher, cohort):
    child = MockChild(Wish(home=str(researcher.root), dataset="mimic-iii", cohort=tuple(cohort)))
    first = next(iter(child.news()))
    assert first == News(domain="micu@x.org", words="waiting for its public keys on the store")
    child.stop()


def test_a_child_without_a_home_says_why(tmp_path, cohort):
    child = MockChild(Wish(home=str(tmp_path / "nobody"), dataset="mimic-iii", cohort=tuple(cohort)))
    assert [news.domain for news in child.news() if "no researcher's home" in news.words] == list(EMAILS)
    child.stop()
