"""A study written by clicks and keys in a real JupyterLab, tried on mock data, and there again after a restart."""

import pytest

pytest.importorskip("playwright")

from tests.browser.lab_page import NotebookPage, browser_page, jupyter, needs_browser, write_notebook

pytestmark = [pytest.mark.e2e, needs_browser]

SETUP = """
from pathlib import Path
from fedpriv.protection import IdentityKeys
from fedpriv.researcher import Researcher, ResearcherConfig
from fedpriv.study.plan import MemberChoice
from fedpriv.widgets import StudyBuilder

home = Path("home")
if not home.exists():
    Researcher.create(home, ResearcherConfig(name="ada", email="ada@y.org", store="store"))
cohort = []
for name in ("micu", "sicu", "ccu"):
    keys = IdentityKeys.create(f"{name}@hospital.example", name, "11" * 32)
    cohort.append(MemberChoice(email=keys.email, fingerprint=keys.fingerprint))
"""
SHOW = 'builder = StudyBuilder(Researcher.open(home), "icu", cohort=cohort, base_model="tiny")\nbuilder'
TEXT = 'textarea[data-file="plan.yaml"]'


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("builder") / "notebooks"
    folder.mkdir()
    write_notebook(folder / "study.ipynb", SETUP, SHOW)
    with jupyter(folder) as url, browser_page() as page:
        yield url, page


def control(page, path):
    return page.locator(f'[data-path="{path}"]')


def wait_for(page, condition, timeout_s=180):
    page.wait_for_function(condition, timeout=timeout_s * 1000)


def test_a_study_is_written_tried_saved_and_there_again_after_a_restart(lab, pictures):
    url, page = lab
    page.set_default_timeout(180_000)  # a busy machine is no failure
    notebook = NotebookPage(page, url, "study.ipynb")
    assert notebook.run_all() == ""
    page.wait_for_selector(TEXT)
    wait_for(page, "document.querySelector('.fp-costs')?.innerText.includes('plain fp32')")
    notebook.screenshot(pictures / "builder-light.png")

    control(page, "training.rounds").fill("7")
    control(page, "training.rounds").press("Tab")
    wait_for(page, f"document.querySelector('{TEXT}')?.value.includes('  rounds: 7\\n')")

    text = page.locator(TEXT).input_value()
    page.locator(TEXT).fill("# for the ward\n" + text.replace("  rounds: 7\n", "  rounds: 0\n"))
    wait_for(page, "document.querySelector('.fp-troubles').innerText.includes('greater than or equal to 1')")
    assert control(page, "training.rounds").input_value() == "0"
    notebook.screenshot(pictures / "builder-wrong.png")
    page.locator(TEXT).fill("# for the ward\n" + text.replace("  rounds: 7\n", "  rounds: [\n"))
    wait_for(page, "document.querySelector('.fp-form').innerText.includes('cannot be read just now')")
    assert control(page, "training.rounds").is_disabled()
    page.locator(TEXT).fill("# for the ward\n" + text.replace("  rounds: 7\n", "  rounds: 5\n"))
    wait_for(page, "document.querySelector('[data-path=\"training.rounds\"]').value === '5'")

    page.locator('[data-do="try"]').click()
    page.wait_for_selector(".fp-trial", timeout=120_000)
    assert page.locator(".fp-trial").get_attribute("data-good") == "true"
    control(page, "privacy.unit").select_option("patient")
    wait_for(page, "document.querySelector('.fp-costs').innerText.includes('epsilon at 10,000')")
    assert notebook.serious() == []
    assert notebook.cut_off() == []
    notebook.theme("JupyterLab Dark")
    notebook.screenshot(pictures / "builder-dark.png")
    assert notebook.serious() == []

    page.locator('[data-do="save"]').click()
    wait_for(page, "document.querySelector('.fp-answer').innerText.includes('Saved to')")
    assert notebook.ask_kernel("builder.study.plan.training.rounds") == "5"
    page.locator('[data-file="train.py"].fp-tab').click()
    page.locator('textarea[data-file="train.py"]').press("Control+End")
    page.keyboard.type("# half a thou")
    wait_for(page, "document.querySelector('.fp-standing').innerText.includes('Changed since')")
    notebook.restart()
    assert notebook.run_all() == ""
    page.locator('[data-file="train.py"].fp-tab').click()
    wait_for(page, "document.querySelector('textarea[data-file=\"train.py\"]')?.value.endsWith('# half a thou')")
    assert page.blocked == []
