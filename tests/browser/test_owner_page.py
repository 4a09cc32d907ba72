"""A data owner's day by clicks alone, at a real domain, in a real JupyterLab."""

import pytest

from fedpriv.clinical.synthetic import write_synthetic
from fedpriv.domain import DataChoice, Domain, DomainConfig, PolicyChoice, sandbox
from fedpriv.domain.requests import ReleaseDecision
from fedpriv.protection import IdentityKeys
from fedpriv.study import CodeRequest, Plan
from fedpriv.study.plan import BaseModelChoice, MemberChoice, TrainingChoice
from fedpriv.study.privacy import PrivacyChoice
from fedpriv.training import ensure_model
from fedpriv.training.recipe import stock_recipe
from tests.browser.lab_page import NotebookPage, browser_page, jupyter, needs_browser, write_notebook

pytestmark = needs_browser

ADA = "ada@uni-y.org"
TITLE = "<script>document.title='taken'</script> Own recipe"
OWN = """

import socket


def call(text):
    '<img src=x onerror=alert(1)>'
    socket.create_connection((text, 80))
"""


def request(domain, ada, title, code, rounds=3):
    plan = Plan(
        title=title,
        researcher=MemberChoice(email=ADA, fingerprint=ada.fingerprint),
        cohort=(
            MemberChoice(email=domain.config.email, fingerprint=domain.keys.fingerprint),
            MemberChoice(email="sicu@hospital-z.org", fingerprint="22" * 32),
        ),
        base_model=BaseModelChoice(name="tiny"),
        training=TrainingChoice(rounds=rounds),
        privacy=None if code != stock_recipe() else PrivacyChoice(epsilon=4.0),
    )
    made = CodeRequest.new(plan, code)
    domain.requests.receive(made, ADA)
    domain.ledger.append("request.received", study=made.study, researcher=ADA)
    return made.study


@pytest.fixture
def ada():
    return IdentityKeys.create(ADA, "ada", "11" * 32)


@pytest.fixture
def domain(tmp_path, ada):
    ensure_model("tiny")
    write_synthetic(tmp_path / "tables", patients=20, seed=1)
    (tmp_path / "store").mkdir()
    config = DomainConfig(
        name="micu",
        email="micu@hospital-x.org",
        store=str(tmp_path / "store"),
        data=DataChoice(source=str(tmp_path / "tables")),
        researchers=(MemberChoice(email=ADA, fingerprint=ada.fingerprint),),
        policy=PolicyChoice(minimum_cohort=2),
    )
    return Domain.create(tmp_path / "micu", config)


class Console:
    """The console on a page: what a person clicks, and pictures of it."""

    def __init__(self, notebook, pictures):
        self.notebook, self.page, self.pictures = notebook, notebook.page, pictures
        self.problems, self.themes = [], ["Light", "Dark"]

    def do(self, name):
        self.page.locator(f'[data-do="{name}"]').first.click()

    def tab(self, name):
        self.page.click(f'[data-tab="{name}"]')

    def see(self, selector, timeout_s=20):
        self.page.wait_for_selector(selector, timeout=timeout_s * 1000)

    def picture(self, name):
        """Take a picture in both themes, and look for what a person could not read, reach or see."""
        for theme in self.themes:
            self.notebook.theme(f"JupyterLab {theme}")
            self.notebook.screenshot(self.pictures / f"owner-{name}-{theme.lower()}.png")
            self.problems += [f"{name} {theme}: {line}" for line in self.notebook.serious() + self.notebook.cut_off()]
        self.themes.reverse()  # the next picture begins in the theme that is on


@pytest.fixture
def console(tmp_path, domain, pictures):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    cells = (
        "from pathlib import Path\nfrom fedpriv.domain import Domain\n"
        "from fedpriv.widgets import DataOwnerConsole\n"
        f"console = DataOwnerConsole(Domain.open(Path({str(domain.folder.root)!r})))\nconsole",
    )
    write_notebook(folder / "day.ipynb", *cells)
    with jupyter(folder) as url, browser_page() as page:
        notebook = NotebookPage(page, url, "day.ipynb")
        console = Console(notebook, pictures)
        yield console
        if page.locator('[data-service="running"]').count():
            page.locator("summary", has_text="More:").click()
            console.do("stop")
            console.do("stop-yes")
            console.see('[data-service="stopped"]')
        assert page.blocked == []


@pytest.mark.timeout(300)
@pytest.mark.skipif(sandbox.bubblewrap() is None, reason="bubblewrap does not work here")
def test_a_data_owner_s_day_by_clicks_alone(domain, ada, console):
    own = request(domain, ada, TITLE, stock_recipe() + OWN)
    stock = request(domain, ada, "Discharge summaries", stock_recipe())
    page, book = console.page, domain.requests
    assert console.notebook.run_all() == ""

    console.see(".fp-requests", 10)
    console.picture("requests")
    console.do("serve")
    console.see('[data-service="running"]', 60)

    page.click(f'[data-study="{own}"] [data-do="open"]')
    console.see('[data-tab="summary"]')
    assert TITLE in page.inner_text(".fp-title")
    for part in ("summary", "limits", "files", "changes", "dryrun", "findings"):
        console.tab(part)
        console.picture(part)
    console.do("jump")
    console.see(".fp-found")
    assert "import socket" in page.inner_text(".fp-found")
    assert page.locator(".fp-found").is_visible()
    assert page.title() != "taken"
    assert page.locator(".fedpriv :is(script, img)").count() == 0
    console.tab("decide")
    assert page.locator('[data-field="epsilon"]').count() == 0
    assert "an epsilon would limit nothing" in page.inner_text('[aria-label="Approve with limits"]')
    assert page.locator('[data-do="reject"]').is_disabled(), "no rejection without a reason"
    page.fill('[data-field="reject-reason"]', "It opens a connection.")
    console.see('[data-do="reject"]:enabled')  # drawn with the next frame; a button that is off takes no key
    page.locator('[data-do="reject"]').press("Enter")
    page.wait_for_function("document.activeElement.dataset.focus?.endsWith(' no')")  # a second Enter rejects nothing
    console.picture("reject")
    console.do("reject-yes")
    console.see('[data-now="rejected"]')
    assert book.decision(own).reason == "It opens a connection."

    console.do("back")
    page.click(f'[data-study="{stock}"] [data-do="open"]')
    console.tab("dryrun")
    console.do("try")
    console.see("[data-trying]")
    console.see("[data-outcome]", 120)
    assert page.locator("[data-outcome]").get_attribute("data-outcome") == "passed"
    console.picture("tried")
    console.tab("audit")
    console.do("audit")
    console.see("[data-trying]")
    console.see("[data-audit]", 240)
    assert "not measured" not in page.inner_text(".fp-notice:has([data-audit])")
    console.picture("audited")
    console.tab("decide")
    page.fill('[data-field="rounds"]', "9")
    console.see('[data-do="approve"]:disabled')
    page.fill('[data-field="rounds"]', "2")
    console.picture("approve")
    console.do("approve")
    console.see('[data-now="approved"]')
    limits = book.decision(stock).limits
    assert (limits.rounds, limits.epsilon, limits.release) == (2, 4.0, False)

    asked = ReleaseDecision(decision="pending", adapter_sha256="ab" * 32, asked_s=1.0)
    book.decide_release(stock, asked)
    console.tab("releases")
    console.see(".fp-release")
    console.picture("releases")
    console.do("release")
    console.do("release-yes")
    console.see('.fp-release [data-decision="approved"]')
    assert book.release(stock).decision == "approved"

    console.tab("budget")
    console.picture("budget")
    console.tab("ledger")
    console.do("verify")
    console.see('[data-verified="whole"]')
    page.locator(".fp-timeline summary").first.click()
    console.picture("ledger")

    console.notebook.restart()
    assert console.notebook.run_all() == ""
    console.see(f'[data-study="{stock}"] [data-decision="approved"]')
    page.click(f'[data-study="{stock}"] [data-do="open"]')
    console.tab("decide")
    page.fill('[data-field="revoke-reason"]', "The study is over.")
    console.do("revoke")
    console.do("revoke-yes")
    console.see('[data-now="revoked"]')
    assert book.decision(stock).decision == "revoked"
    assert console.problems == []
