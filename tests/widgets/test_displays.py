"""What values look like: every type, nothing of a text becomes markup, and nothing below knows of it."""

import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.domain import Ledger
from fedpriv.researcher.events import AdapterReleased, RoundFinished, StudyFinished, StudyStarted
from fedpriv.study import SignedUpdate, UpdateHeader
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice
from fedpriv.widgets.displays import MOST_ENTRIES, SHEETS, display
from fedpriv.widgets.registering import KINDS, register
from fedpriv.widgets.sheet import Facts, Folded, Sheet, Table, to_html, to_text
from fedpriv.widgets.study_state import replayed
from tests.study.study_plans import plans

HOSTILE = "<img src=x onerror=alert(1)>&amp;\"' </td></table><script>alert(2)</script>\x1b[2J"
OURS = {"div", "strong", "p", "table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary", "pre"}


class Reader(HTMLParser):
    """Reads a page as a browser would: its tags, the names of their attributes, and its text."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts = [], set(), []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.texts.append(data)


def sheets(texts):
    row = st.tuples(texts, texts)
    part = st.one_of(
        st.builds(Facts, rows=st.lists(row, max_size=3).map(tuple)),
        st.builds(Table, caption=texts, head=row, rows=st.lists(row, max_size=3).map(tuple), numbers=st.integers(0, 2)),
        st.builds(Folded, caption=texts, text=texts),
    )
    return st.builds(Sheet, title=texts, note=texts, parts=st.lists(part, max_size=3).map(tuple))


hostile = st.text("<>&\"'/=\x1b\u202e\n abcimgscripton", max_size=60) | st.just(HOSTILE) | st.text(max_size=40)


@given(sheet=sheets(hostile))
def test_no_text_becomes_markup_or_means_something_to_a_terminal(sheet):
    page, text = to_html(sheet), to_text(sheet)
    read = Reader(page)
    assert set(read.tags) <= OURS
    assert read.attributes <= {"class", "style", "scope"}
    tags = ["div", "strong", *(["p"] if sheet.note else [])]
    assert read.tags[: len(tags)] == tags
    assert "<script" not in page
    assert all(line.isprintable() for line in text.split("\n"))


@given(sheet=sheets(st.text("abc<&>", min_size=1, max_size=20)))
def test_every_text_is_there_as_it_was_given(sheet):
    shown = "".join(Reader(to_html(sheet)).texts)
    said = [sheet.title, sheet.note]
    for part in sheet.parts:
        if isinstance(part, Folded):
            said += [part.caption, part.text]
        else:
            said += [cell for row in part.rows for cell in row]
    for what in said:
        assert what in shown
        assert what in to_text(sheet)


def test_a_sheet_has_no_colour_of_its_own_so_that_it_is_read_on_a_dark_page():
    sheet = Sheet(
        title="t", note="n", parts=(Table(caption="c", head=("h",), rows=(("x",),)), Folded(caption="f", text="x"))
    )
    styles = re.findall(r'style="([^"]*)"', to_html(sheet))
    assert not [style for style in styles if re.search(r"(?<!-)color: (?!inherit)|background: (?!transparent)", style)]


# -- our values --------------------------------------------------------------------------------------------------------


@given(plan=plans())
def test_every_plan_and_its_protection_are_shown(plan):
    bundle = display(plan)
    assert set(Reader(bundle["text/html"]).tags) <= OURS
    assert plan.title in bundle["text/plain"]
    assert plan.title in unescape(bundle["text/html"])
    protection = display(plan.protection)["text/plain"]
    assert all(rule.level in protection for rule in plan.protection.rules)


def test_a_title_with_markup_stays_text(study):
    plan = study.plan.model_copy(update={"title": "<b>ICU</b> & <script>"})
    page = display(plan)["text/html"]
    assert "&lt;b&gt;ICU&lt;/b&gt; &amp; &lt;script&gt;" in page
    assert "<b>" not in page


def test_protection_says_who_sees_what_in_the_order_of_its_rules():
    choice = ProtectionChoice(
        rules=(LevelRule(layers=(0, 1), level="masked", bits=8), LevelRule(tensors=("*.q_proj.*",), level="plain"))
    )
    lines = display(choice)["text/plain"].splitlines()
    row = next(number for number, line in enumerate(lines) if line.startswith("  tensors of layers 0, 1"))
    assert re.search(r"masked\s+the researcher sees their sum, but no single update\s+8$", lines[row])
    assert re.search(r"\*\.q_proj\.\*\s+plain\s+the researcher sees EVERY SINGLE update$", lines[row + 1])
    assert re.search(r"every other tensor\s+sealed\s+nobody sees a single update.*\s10$", lines[row + 2])


FINISHED = {
    "study": "s",
    "round": 2,
    "attempt": 1,
    "train_loss": 2.5,
    "heldout_loss": 2.25,
    "weights": {"a@x.org": 0.25, "b@x.org": 0.75},
    "bytes_up": 3 * 2**20,
    "bytes_down": 4 * 2**20,
    "parameters": 2**20,
    "seconds": {"train": 3.0, "wall": 75.0},
}


def test_a_round_is_shown_beside_plain_numbers():
    text = display(RoundFinished(**FINISHED))["text/plain"]
    assert "3 MiB sealed, 4 MiB as plain fp32" in text
    assert re.search(r"a@x\.org\s+25\.0%\n\s+b@x\.org\s+75\.0%", text)
    assert "train 3 s, wall 75 s" in text
    state = replayed([RoundFinished(**{**FINISHED, "train_loss": None, "quality": {"auroc_mean": 0.75}})])
    text = display(state.rounds[0])["text/plain"]
    assert "training loss  " not in text.split("What each")[0]
    assert "auroc mean" in text


def header():
    digests = {name: f"{number}" * 64 for number, name in enumerate(("study", "cohort", "key_id", "layout", "scales"))}
    return UpdateHeader(
        round=3,
        attempt=1,
        member="a@x.org",
        level="sealed",
        bits=10,
        weight=0.5,
        nonce="0" * 32,
        parameters=1000,
        **digests,
    )


def test_a_header_and_its_update_say_what_they_hide():
    text = display(header())["text/plain"]
    assert "sealed: nobody sees a single update" in text
    assert "1,000 (3.91 KiB as plain fp32)" in text
    update = SignedUpdate(header=header(), container_sha256="a" * 64, container_bytes=6000, signature="A" * 86 + "==")
    text = display(update)["text/plain"]
    assert "1.50 times plain fp32" in text
    assert "Only a sum" in text


@pytest.fixture
def ledger(tmp_path):
    return Ledger(
        tmp_path / "ledger.jsonl", lambda data: data.decode()[:8], lambda data, sign: sign == data.decode()[:8]
    )


def test_a_ledger_is_shown_with_its_newest_entries_and_whether_it_is_whole(ledger, tmp_path):
    assert "Whole: 0 entries" in display(ledger)["text/plain"]
    for number in range(MOST_ENTRIES + 5):
        ledger.append("job.refused", name=f"<b>{number}</b>", digest="d" * 64)
    bundle = display(ledger)
    assert f"Whole: {MOST_ENTRIES + 5} entries" in bundle["text/plain"]
    assert f"The newest {MOST_ENTRIES} of {MOST_ENTRIES + 5}" in bundle["text/plain"]
    assert "name <b>24</b>" in bundle["text/plain"]
    assert "name &lt;b&gt;24&lt;/b&gt;" in bundle["text/html"]
    assert "<b>" not in bundle["text/html"]
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b"<b>7</b>", b"<b>8</b>"))
    assert "NOT whole. Entry 8 of the ledger was changed" in display(ledger)["text/plain"]


def test_a_study_is_shown_from_draft_to_release(study):
    assert "A draft: nothing was sent yet." in display(study)["text/plain"]
    assert re.search(r"micu@x\.org\s+not sent", display(study)["text/plain"])
    study.folder.freeze(study.folder.draft())
    text = display(study)["text/plain"]
    assert "0 of 3 rounds are done; nothing runs." in text
    assert "waits for its data owner" in text
    study.history(StudyStarted(study="s", domains=("micu@x.org", "sicu@x.org"), rounds=3, resumed=False))
    study.history(RoundFinished(**{**FINISHED, "weights": {"micu@x.org": 0.5, "sicu@x.org": 0.5}}))
    assert "The newest 1 of 1 rounds" in display(study)["text/plain"]
    losses = {"loss_before": 3.0, "loss_after": 2.0, "loss_after_by_domain": {}, "heldout_tokens": {}}
    study.history(StudyFinished(study="s", adapter_sha256="a" * 64, seconds={}, **losses))
    assert "held-out loss 3.0000 before, 2.0000 after" in display(study)["text/plain"]
    study.history(AdapterReleased(study="s", folder="/some/where", adapter_sha256="a" * 64))
    assert "the adapter is in /some/where" in display(study)["text/plain"]


def test_a_study_that_cannot_be_read_is_shown_as_the_sentence_that_says_so(study):
    (study.folder.root / "plan.yaml").write_text("training: {rounds: <b>}\n")
    bundle = display(study)
    assert "plan.yaml:" in bundle["text/plain"]
    assert "<b>" not in bundle["text/html"]


# -- IPython -----------------------------------------------------------------------------------------------------------


def test_what_is_registered_is_what_can_be_shown():
    assert sorted(KINDS) == sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in SHEETS)


def test_ipython_shows_a_plan_as_a_sheet_and_fedpriv_alone_imports_no_ipython():
    script = (
        "import sys, fedpriv.study\n"
        "assert 'IPython' not in sys.modules and 'fedpriv.widgets' not in sys.modules\n"
        "for name in [name for name in sys.modules if name.startswith('fedpriv')]: del sys.modules[name]\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "from fedpriv.study.protection_choice import ProtectionChoice\n"
        "assert 'fedpriv.widgets.displays' not in sys.modules\n"
        "data, _ = shell.display_formatter.format(ProtectionChoice())\n"
        "assert data['text/plain'].startswith('Protection of an update'), data\n"
        "assert data['text/html'].startswith('<div class=\"fedpriv-sheet\"'), data\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_without_a_shell_nothing_is_registered():
    register(None)


def test_what_the_package_names_is_there():
    import fedpriv.widgets

    for name in fedpriv.widgets.__all__:
        assert getattr(fedpriv.widgets, name).__name__ == name
