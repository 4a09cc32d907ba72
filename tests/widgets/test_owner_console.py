import json
import threading

import pytest

pytest.importorskip("anywidget")

from fedpriv.errors import ConfigError
from fedpriv.study import CodeRequest
from fedpriv.training.recipe import stock_recipe
from fedpriv.widgets import DataOwnerConsole
from tests.domain.conftest import ADA

TITLE = "<script>alert(1)</script>"


@pytest.fixture
def hostile(domain, plan):
    text = stock_recipe() + '\nimport socket\n"""</pre><img src=x onerror=alert(1)>"""\n'
    request = CodeRequest.new(plan.model_copy(update={"title": TITLE}), text)
    domain.requests.receive(request, ADA)
    return request.study


@pytest.fixture
def console(domain, hostile, told):
    console = DataOwnerConsole(domain)
    threads = console.threads_seen = set()

    def note(change):
        threads.add(threading.current_thread())
        told((change.name, change.new))

    console.observe(note, ["view", "answer"])
    told(("view", console.view))
    yield console
    console.close()


def ask(console, **message):
    """Do what the front end does when somebody clicks."""
    console._handle_custom_msg(message, [])


def viewed(told, until):
    return told.wait(lambda seen: seen[0] == "view" and bool(seen[1]) and until(seen[1]))[1]


def answered(told, do):
    return told.wait(lambda seen: seen[0] == "answer" and seen[1].get("do") == do)[1]


def test_a_request_is_opened_decided_and_recorded_in_other_threads(domain, hostile, console, told):
    view = viewed(told, lambda view: view["requests"])
    assert view["requests"][0]["title"] == TITLE, "text is text: nothing is markup, on either side"
    ask(console, do="open", study=hostile)
    review = viewed(told, lambda view: view["review"])["review"]
    assert review["title"] == TITLE
    assert review["grave"] == 1
    spans = [text for _, _, spans in review["file"]["lines"] for _, text in spans]
    assert any("<img src=x" in text for text in spans)
    ask(console, do="reject", study=hostile, reason="it opens a connection")
    assert answered(told, "reject")["good"]
    view = viewed(told, lambda view: view["review"] and view["review"]["decision"] == "rejected")
    assert view["review"]["reason"] == "it opens a connection"
    assert view["ledger"]["newest"][0]["kind"] == "request.rejected"
    assert threading.main_thread() not in console.threads_seen
    assert "rejected" in console.as_text()
    json.dumps(console.view)


def test_the_answer_to_an_earlier_click_goes_when_something_else_is_opened(hostile, console, told):
    ask(console, do="revoke", study=hostile, reason="x")
    assert not answered(told, "revoke")["good"]
    ask(console, do="open", study=hostile)
    told.wait(lambda seen: seen == ("answer", {}))


def test_a_domain_that_cannot_be_read_any_more_is_said_where_it_was_shown(domain, hostile, console, told):
    viewed(told, lambda view: view["requests"])
    config = domain.folder.config_path.read_text()
    domain.folder.config_path.write_text("fedpriv: [")
    ask(console, do="open", study="")
    view = viewed(told, lambda view: view["problem"])
    assert view["requests"], "what was known stays in sight"
    domain.folder.config_path.write_text(config)
    ask(console, do="open", study="")
    viewed(told, lambda view: not view["problem"] and view["requests"])


def test_a_folder_will_do_and_another_one_is_refused_with_a_sentence(domain, tmp_path):
    DataOwnerConsole(str(domain.folder.root)).close()
    with pytest.raises(ConfigError, match="is no domain"):
        DataOwnerConsole(tmp_path / "nothing")


def test_closing_ends_its_threads(domain):
    before = set(threading.enumerate())
    console = DataOwnerConsole(domain)
    assert set(threading.enumerate()) - before
    console.close()
    assert not set(threading.enumerate()) - before


def test_the_page_s_code_is_one_module_and_reads_no_html():
    source = DataOwnerConsole._esm
    assert 'from "./' not in source
    assert DataOwnerConsole._css.count(".fp-timeline") > 1
    from fedpriv.widgets.panel import STATIC

    for path in STATIC.glob("owner_*.js"):
        text = path.read_text(encoding="utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, path.name
