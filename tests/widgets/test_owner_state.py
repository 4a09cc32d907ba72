import json
import os
import time

import pytest

from fedpriv.clinical import prepare
from fedpriv.clinical.synthetic import write_synthetic
from fedpriv.domain import Terms
from fedpriv.domain.dry_run import DryRun
from fedpriv.domain.privacy_budget import PrivacyBudget
from fedpriv.domain.requests import ReleaseDecision
from fedpriv.files import folder_lock, write_json
from fedpriv.study import CodeRequest
from fedpriv.study.privacy import PrivacyChoice
from fedpriv.training import ensure_model
from fedpriv.training.recipe import stock_recipe
from fedpriv.widgets import owner_reading
from fedpriv.widgets.owner_actions import OwnerDesk
from fedpriv.widgets.owner_reading import OwnerReader
from fedpriv.widgets.owner_review_view import pages
from fedpriv.widgets.owner_state import MOST_ENTRIES, MOST_ROWS, Opened
from fedpriv.widgets.owner_view import owner_text, owner_view
from fedpriv.widgets.owner_watch import OwnerWatch
from tests.domain.conftest import ADA


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    ensure_model("tiny", cache=folder)
    return folder


@pytest.fixture
def reader(domain, cache):
    return OwnerReader(root=domain.folder.root, cache=cache)


@pytest.fixture
def received(domain, code_request):
    domain.requests.receive(code_request, ADA)
    return code_request.study


def own_request(plan, text, **changes):
    return CodeRequest.new(plan.model_copy(update=changes), stock_recipe() + text)


def damage(domain, study):
    path = domain.requests.recipe_path(study)
    path.chmod(0o600)
    path.write_text("evil = 1\n")


def test_a_new_domain_has_nothing_to_decide(domain, reader):
    state = reader.look(Opened())
    assert (state.name, state.email, state.requests, state.releases) == ("micu", "micu@x.org", (), ())
    assert (state.service.running, state.service.doing) == (False, "never started")
    assert len(state.words.split()) == 12
    assert [line.words for line in state.ledger.newest] == ["The domain was created"]
    assert (state.to_decide, state.budget.spent, state.trying) == (0, 0.0, None)


def test_a_request_is_in_the_list_and_its_review_is_what_the_command_shows(domain, reader, received, plan):
    evil = own_request(plan, "\nimport socket\n", title="<script>alert(1)</script>")
    domain.requests.receive(evil, ADA)
    state = reader.look(Opened(study=evil.study))
    assert {row.study: (row.decision, row.within_limits, row.rounds) for row in state.requests} == {
        received: ("pending", True, 3),
        evil.study: ("pending", True, 3),
    }
    assert state.to_decide == 2
    assert state.review.title == "<script>alert(1)</script>"
    assert [finding.code for finding in state.review.findings] == ["import socket"]
    assert not state.review.is_stock
    assert state.form.limits.rounds == 3
    assert state.form.limits.seconds == plan.training.max_seconds
    assert 29 < (state.form.limits.expires_s - time.time()) / 86_400 < 31


def test_what_did_not_change_is_not_read_again(domain, reader, received, monkeypatch):
    opened = Opened(study=received)
    first = reader.look(opened)
    made = []
    for name in ("review_of", "waits", "budget_gauge", "checks"):
        real = getattr(owner_reading, name)
        monkeypatch.setattr(
            owner_reading, name, lambda *a, real=real, name=name, **k: made.append(name) or real(*a, **k)
        )
    assert reader.look(opened) == first
    assert made == []
    domain.ledger.append("round.started", study=received, round=1)
    assert reader.look(opened).ledger.total == first.ledger.total + 1
    assert made == [], "an entry of the ledger is read, and nothing else"
    domain.approve(received)
    state = reader.look(opened)
    assert (state.requests[0].decision, state.review.decision.decision) == ("approved", "approved")
    assert set(made) == {"review_of", "waits", "checks"}


def test_a_decision_in_another_process_is_seen(domain, reader, received):
    assert reader.look(Opened()).requests[0].decision == "pending"
    domain.approve(received, Terms(rounds=2))
    state = reader.look(Opened(study=received))
    assert state.requests[0].decision == "approved"
    assert (state.form.limits.rounds, state.form.rounds_most) == (2, 3)
    assert state.requests[0].ends_s is None
    domain.approve(received, Terms(days=1))
    ends_s = reader.look(Opened(study=received)).requests[0].ends_s
    assert ends_s == pytest.approx(time.time() + 86_400, abs=60)
    assert [(wait.who, wait.what[:20]) for wait in state.waiting] == [("the researcher", "send the first ticke")]
    domain.revoke(received, "enough")
    assert reader.look(Opened()).requests[0].decision == "revoked"


def test_a_request_that_was_changed_on_disk_is_a_row_with_a_problem(domain, reader, received):
    reader.look(Opened())
    damage(domain, received)
    state = reader.look(Opened(study=received))
    (row,) = state.requests
    assert row.within_limits is None
    assert "was changed on disk" in row.problem
    assert state.review is None
    assert "was changed on disk" in state.review_problem
    assert "Next: reject it" in state.review_problem
    assert owner_view(state)["review"] is None


def test_domain_yaml_is_read_again_and_a_service_that_began_before_is_named(domain, reader, received):
    assert reader.look(Opened()).requests[0].within_limits
    write_json(domain.folder.status_path, {"state": "waiting for tickets", "since_s": 1.0, "pid": 1})
    with folder_lock(domain.folder.lock_path, holder="The domain", todo="wait"):
        os.utime(domain.folder.config_path, (1, 1))
        service = reader.look(Opened()).service
        assert (service.running, service.doing, service.older_than_config) == (True, "waiting for tickets", False)
        policy = domain.config.policy.model_copy(update={"max_rounds": 2})
        domain.folder.write_config(domain.config.model_copy(update={"policy": policy}))
        os.utime(domain.folder.config_path, (time.time() + 5, time.time() + 5))
        state = reader.look(Opened(study=received))
        assert state.service.older_than_config
    assert not state.requests[0].within_limits
    assert not state.review.within_limits
    assert reader.look(Opened()).service.doing == "stopped"


def test_the_ledger_is_read_on_and_bounded_and_another_file_is_read_anew(domain, reader):
    for number in range(MOST_ENTRIES + 20):
        domain.ledger.append("round.started", study="a" * 64, round=number)
    state = reader.look(Opened())
    assert (state.ledger.total, len(state.ledger.newest)) == (MOST_ENTRIES + 21, MOST_ENTRIES)
    assert state.ledger.newest[0].number == MOST_ENTRIES + 21
    assert state.ledger.newest[0].facts == (("round", str(MOST_ENTRIES + 19)), ("study", "a" * 64))
    backup = domain.folder.ledger_path.read_bytes().splitlines(keepends=True)[:3]
    domain.folder.ledger_path.unlink()
    domain.folder.ledger_path.write_bytes(b"".join(backup))
    assert [line.number for line in reader.look(Opened()).ledger.newest] == [3, 2, 1]


def test_a_release_is_to_decide_until_somebody_did_or_it_was_allowed_before(domain, reader, received):
    domain.approve(received)
    asked = ReleaseDecision(decision="pending", adapter_sha256="ab" * 32, asked_s=5.0)
    domain.requests.decide_release(received, asked)
    (row,) = reader.look(Opened()).releases
    assert row.is_to_decide
    domain.approve(received, Terms(release=True))
    (row,) = reader.look(Opened()).releases
    assert (row.in_advance, row.is_to_decide) == (True, False)
    domain.withhold(received, "not yet")
    (row,) = reader.look(Opened()).releases
    assert (row.decision, row.reason, row.is_to_decide) == ("withheld", "not yet", False)
    domain.ledger.append("adapter.released", study=received)
    assert reader.look(Opened()).releases[0].handed_over


def test_the_budget_follows_the_charges_and_a_changed_ledger_is_a_problem(domain, reader, plan, received):
    private = plan.model_copy(update={"privacy": PrivacyChoice(epsilon=8.0)})
    assert reader.look(Opened(), gauge=False).budget is None
    assert reader.look(Opened()).budget.spent == 0
    PrivacyBudget(domain.ledger).charge(private, received, 1, "a", dataset="mimic-iii", patients=62, budget=None)
    assert reader.look(Opened()).budget.spent > 0
    changed = domain.folder.ledger_path.with_name("changed")
    changed.write_text(domain.folder.ledger_path.read_text().replace("micu@x.org", "micu@y.org"))
    changed.replace(domain.folder.ledger_path)
    state = reader.look(Opened())
    assert state.budget is None
    assert "Entry 1 of the ledger was changed" in state.budget_problem


def test_the_view_is_json_and_says_what_leaves_for_how_long_and_at_what_cost(domain, reader, received, tmp_path):
    write_synthetic(tmp_path / "tables", patients=20, seed=1)
    data = prepare(tmp_path / "tables", domain.folder.data)
    before = reader.look(Opened(study=received))
    domain.ledger.append("dataset.prepared", digest=data.digest, dataset="mimic-iii")
    state = reader.look(Opened(study=received))
    assert not before.review.scope.prepared
    assert state.review.scope.prepared, "the review is made anew once the data are prepared"
    view = json.loads(json.dumps(owner_view(state)))
    groups = {group["title"]: {point["label"] for point in group["points"]} for group in view["review"]["summary"]}
    assert list(groups) == ["What leaves", "For how long", "What it costs", "What it is"]
    assert sum(map(len, groups.values())) == len(state.review.summary)
    assert view["review"]["file"]["name"] == "train.py"
    assert view["review"]["change"] is None
    assert view["serve_command"].endswith(str(domain.folder.root))
    assert "pending" in owner_text(state)


def test_a_huge_request_is_read_page_by_page_and_the_view_stays_small(domain, reader, plan):
    text = "".join(f"x{number} = {number}\n" for number in range(60_000)) + f"y = '{'z' * 900_000}'\nimport socket\n"
    request = own_request(plan, text)
    domain.requests.receive(request, ADA)
    shown = owner_view(reader.look(Opened(study=request.study)))
    assert len(json.dumps(shown)) < 400_000
    file = shown["review"]["file"]
    assert (file["page"], file["lines"][0][0], len(file["lines"])) == (0, 1, 400)
    shown = owner_view(reader.look(Opened(study=request.study, file="train.py", file_page=10**6)))
    assert len(json.dumps(shown)) < 400_000
    last = shown["review"]["file"]
    assert (last["page"], last["lines"][-1][0]) == (last["pages"] - 1, last["total"])
    shown = owner_view(reader.look(Opened(study=request.study, file="../../keys/identity.json")))
    assert shown["review"]["file"]["name"] == "train.py", "nothing but the request's own files is ever shown"


def test_a_finding_s_line_is_found_on_its_page_and_marked(domain, reader, plan):
    request = own_request(plan, "x = 1\n" * 900 + "import socket\n")
    domain.requests.receive(request, ADA)
    line = reader.look(Opened(study=request.study)).review.findings[0].line
    file = owner_view(reader.look(Opened(study=request.study, file="train.py", file_line=line)))["review"]["file"]
    assert (file["page"], file["pages"], file["line"]) == (2, 3, line)
    assert [(number, mark) for number, mark, _ in file["lines"] if mark] == [(line, "danger")]


def test_the_difference_to_the_stock_recipe_is_shown_page_by_page(domain, reader, plan):
    request = own_request(plan, "x = 1\n" * 900)
    domain.requests.receive(request, ADA)
    review = owner_view(reader.look(Opened(study=request.study)))["review"]
    assert [(file["id"], file["kind"]) for file in review["comparisons"][0]["files"]] == [("stock:train.py", "differs")]
    change = review["change"]
    assert (change["id"], change["page"], change["pages"], len(change["lines"])) == ("stock:train.py", 0, 3, 400)
    opened = Opened(study=request.study, change="stock:train.py", change_page=2)
    assert set(owner_view(reader.look(opened))["review"]["change"]["lines"]) == {"+x = 1"}


def test_pages_hold_every_line_once():
    sizes = [10, 99_000, 5_000, 1, 200_000, 3, *[1] * 900]
    cuts = pages(sizes, int)
    assert [line for begin, end in cuts for line in range(begin, end)] == list(range(len(sizes)))
    assert all(sum(sizes[begin:end]) <= 100_000 or end - begin == 1 for begin, end in cuts)
    assert max(end - begin for begin, end in cuts) == 400
    assert pages([], int) == [(0, 0)]


def test_a_long_list_keeps_what_waits_in_front(domain, reader, received, monkeypatch, plan):
    monkeypatch.setattr(owner_reading, "MOST_ROWS", 2)
    for number in range(3):
        request = own_request(plan, f"\n# {number}\n")
        domain.requests.receive(request, ADA)
        domain.reject(request.study, "no")
    state = reader.look(Opened())
    assert (len(state.requests), state.more_requests) == (2, 2)
    assert state.requests[0].study == received
    assert MOST_ROWS > 2


def test_a_watch_tells_changes_and_troubles_and_goes_on(domain, reader, received, told):
    desk = OwnerDesk(domain.folder.root)
    problems = type(told)()
    watch = OwnerWatch(desk, told, problems, reader=reader)
    watch.start()
    try:
        told.wait(lambda state: state.budget is not None)
        config = domain.folder.config_path.read_text()
        domain.folder.config_path.write_text("fedpriv: 7\n")
        desk.changed.set()
        assert "domain.yaml" in problems.wait(lambda problem: problem)
        domain.folder.config_path.write_text(config)
        desk.changed.set()
        problems.wait(lambda problem: not problem)
        domain.approve(received)
        told.wait(lambda state: state.requests[0].decision == "approved")
        write_json(domain.folder.status_path, {"state": "x", "since_s": "never"})
        desk.changed.set()
        assert "fedpriv itself made a mistake (ValidationError)" in problems.wait(lambda problem: "mistake" in problem)
        write_json(domain.folder.status_path, {"state": "x", "since_s": 1.0})
        told.wait(lambda state: state.service.since_s == 1.0)
    finally:
        watch.close()
    count = len(told.said)
    domain.revoke(received, "x")
    desk.changed.set()
    assert len(told.said) == count


@pytest.mark.parametrize(
    ("walls", "words"),
    [
        ("bubblewrap and landlock", "bubblewrap and landlock: no network, no view of your data"),
        ("none", "NONE"),
        ("unknown", "unknown: it ended before it said so"),
    ],
)
def test_a_dry_run_says_which_walls_stood_and_warns_only_where_there_were_none(domain, reader, received, walls, words):
    told = DryRun(study=received, tried_s=1, outcome="failed", walls=walls, steps=2, threads=1, examples=3, seconds=1)
    write_json(domain.requests.dry_run_path(received), told.model_dump(mode="json"))
    shown = owner_view(reader.look(Opened(study=received)))["review"]["dry_run"]
    assert dict(shown["facts"])["sandbox"] == words
    assert shown["walled"] is (words != "NONE")
