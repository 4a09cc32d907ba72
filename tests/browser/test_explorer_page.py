"""Real domains in a real JupyterLab: their mock data, a study sent to them by a click, and what they then say."""

import json

import pytest

pytest.importorskip("playwright")

from fedpriv.experiments import Federation
from fedpriv.researcher import Study
from tests.browser.lab_page import NotebookPage, browser_page, jupyter, needs_browser, write_notebook

pytestmark = [pytest.mark.e2e, needs_browser]

SETUP = """
import json
from pathlib import Path
from fedpriv.researcher import Researcher, Study
from fedpriv.study.plan import MemberChoice
from fedpriv.widgets import DatasetExplorer, StudyBuilder

researcher = Researcher.open(Path({home!r}))
cohort = [MemberChoice(**one) for one in json.loads({cohort!r})]
"""
FETCHED = "document.querySelectorAll('.fp-card .fp-badge.fp-good').length === 3"


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    work = tmp_path_factory.mktemp("explorer")
    with Federation.create(model="tiny", domains=3, work=work / "federation") as federation:
        yield federation


def test_mock_data_of_a_cohort_and_what_it_said_of_its_shards(federation, tmp_path, pictures):
    members = [{"email": d.config.email, "fingerprint": d.keys.fingerprint} for d in federation.domains.values()]
    setup = SETUP.format(home=str(federation.researcher.root), cohort=json.dumps(members))
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write_notebook(folder / "before.ipynb", setup, "DatasetExplorer(researcher, cohort)")
    write_notebook(folder / "study.ipynb", setup, 'StudyBuilder(researcher, "icu", cohort=cohort, base_model="tiny")')
    write_notebook(folder / "after.ipynb", setup, 'DatasetExplorer(Study.open(researcher, "icu"))')
    with jupyter(folder) as url, browser_page() as page:
        page.set_default_timeout(180_000)  # a busy machine is no failure
        notebook = NotebookPage(page, url, "before.ipynb")
        assert notebook.run_all() == ""
        page.wait_for_function(FETCHED, timeout=120_000)
        assert "made up" in page.locator(".fedpriv").inner_text()
        first = page.locator(".fp-text").inner_text()
        page.locator('[data-do="next"]').click()
        page.wait_for_function("document.querySelector('.fp-place').innerText.startsWith('2 of ')")
        assert page.locator(".fp-text").inner_text() != first
        page.locator(".fp-table").select_option("PATIENTS")
        page.wait_for_selector(".fp-schema th:has-text('gender')")
        assert notebook.serious() == []
        assert notebook.cut_off() == []
        notebook.screenshot(pictures / "explorer-light.png")

        notebook = NotebookPage(page, url, "study.ipynb")
        assert notebook.run_all() == ""
        page.locator('[data-path="training.rounds"]').fill("1")
        page.locator('[data-path="training.rounds"]').press("Tab")
        page.wait_for_function("document.querySelector('textarea').value.includes('  rounds: 1\\n')")
        page.locator('[data-do="submit"]').click()
        page.wait_for_function("document.querySelector('.fp-badge').innerText.includes('submitted')", timeout=120_000)
        assert page.locator('[data-path="training.rounds"]').is_disabled()
        notebook.screenshot(pictures / "builder-submitted.png")

        study = Study.open(federation.researcher, "icu")
        study.wait_for_decisions()
        study.run()
        notebook = NotebookPage(page, url, "after.ipynb")
        assert notebook.run_all() == ""
        page.wait_for_function(FETCHED, timeout=120_000)
        text = page.locator(".fedpriv").inner_text()
        assert text.count("Said of its shard, signed") == 3
        assert "harmonised by the same rules" in text
        notebook.theme("JupyterLab Dark")
        notebook.screenshot(pictures / "explorer-dark.png")
        assert notebook.serious() == []
        assert notebook.cut_off() == []
        assert page.blocked == []
