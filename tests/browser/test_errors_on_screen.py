"""What goes wrong is on the screen, as a sentence with the next step: real domains, a real browser."""

import os
import shutil
import subprocess

import pytest

from fedpriv.experiments.lab import JOIN, open_or_create
from fedpriv.researcher import Study
from fedpriv.training.recipe import stock_recipe
from fedpriv.widgets import start_run, wait_until
from tests.browser.lab_page import NotebookPage, browser_page, jupyter, needs_browser, stopping_studies, write_notebook

pytestmark = [pytest.mark.e2e, needs_browser, pytest.mark.timeout(600)]

CELL = """from fedpriv.experiments import demo_federation
from fedpriv.researcher import Study
from fedpriv.widgets import RoundControl
RoundControl(Study.open(demo_federation().researcher, NAME))"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Domains whose owners decide themselves, JupyterLab beside them, and a browser."""
    root = tmp_path_factory.mktemp("errors")
    (root / "notebooks").mkdir()
    with (
        open_or_create(root / "lab") as federation,
        stopping_studies(federation.researcher),
        jupyter(root / "notebooks", {JOIN: str(root / "lab")}) as url,
        browser_page() as page,
    ):
        yield federation, root / "notebooks", url, page
        assert page.blocked == []


def draft(federation, name, **training):
    plan = federation.plan(title=name, **training)
    return Study.create(federation.researcher, name, plan, recipe=stock_recipe())


def shown(place, study):
    _, folder, url, page = place
    name = study.folder.root.name
    write_notebook(folder / f"{name}.ipynb", CELL.replace("NAME", repr(name)))
    notebook = NotebookPage(page, url, f"{name}.ipynb")
    assert notebook.run_all() == ""
    page.wait_for_selector(".fedpriv h2")
    return notebook


def test_a_refused_approval_is_said_with_its_reason_and_the_next_step(place, pictures):
    federation, _, _, page = place
    study = draft(federation, "refused", rounds=2, steps=2)
    notebook = shown(place, study)
    page.click("[data-do=submit]")
    page.wait_for_selector("[data-phase=submitted]", timeout=60_000)
    federation.arrived(study)
    first, *others = federation.domains.values()
    first.reject(study.folder.submitted_id(), "the <b>ethics</b> vote is missing")
    for domain in others:
        domain.approve(study.folder.submitted_id())
    page.click("[data-do=start]")
    problem = page.locator(".fp-notice.fp-bad")
    problem.wait_for(timeout=60_000)
    assert "the <b>ethics</b> vote is missing" in problem.inner_text()
    assert "Next: " in problem.inner_text()
    card = page.locator(f'[data-domain="{first.config.email}"]')
    assert "✗ rejected" in card.inner_text()
    assert page.locator(".fedpriv b").count() == 0
    notebook.screenshot(pictures / "error-refused.png")
    assert notebook.serious() == []


def test_a_lost_domain_is_named_on_its_card_with_what_to_do(place, pictures):
    federation, _, _, page = place
    study = draft(federation, "lost", rounds=3, steps=400)
    study.submit()
    federation.approve(study)
    study.steering.change(patience_s=2)
    start_run(study)
    wait_until(study, lambda state: state.at_round == 1)
    name, domain = next(reversed(federation.domains.items()))
    process = federation._processes[name]
    process.kill()
    process.wait()
    notebook = shown(place, study)
    card = page.locator(f'[data-domain="{domain.config.email}"]')
    warning = card.locator(".fp-warn")
    warning.wait_for(timeout=60_000)
    assert "Not heard of for" in warning.inner_text()
    assert "exclude it: the others go on" in warning.inner_text()
    notebook.screenshot(pictures / "error-lost-domain.png")
    card.locator("[data-do=exclude-ask]").click()
    card.locator(".fp-reason").fill("its power is off")
    card.locator("[data-do=exclude]").click()
    page.wait_for_selector(f'[data-domain="{domain.config.email}"] >> text=Excluded: its power is off', timeout=30_000)
    study.stop()
    federation.serve(name)
    page.wait_for_selector("[data-phase=stopped]", timeout=60_000)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a small disk")
def test_a_full_disk_is_said_and_the_study_goes_on_when_there_is_room(place, pictures):
    federation, _, _, page = place
    study = draft(federation, "full", rounds=1, steps=2)
    root = study.folder.root
    kept = root.with_name("kept")
    shutil.copytree(root, kept)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(root)], check=True)
    try:
        shutil.copytree(kept, root, dirs_exist_ok=True)
        shutil.rmtree(kept)
        study.submit()
        federation.approve(study)
        filler = root / "filler"
        with filler.open("wb") as stream, pytest.raises(OSError, match="No space"):
            while True:
                stream.write(b"0" * 65536)
                stream.flush()
        notebook = shown(place, study)
        page.click("[data-do=start]")
        problem = page.locator(".fp-notice.fp-bad")
        problem.wait_for(timeout=30_000)
        assert "is full" in problem.inner_text()
        assert "Next: make room" in problem.inner_text()
        notebook.screenshot(pictures / "error-full-disk.png")
        filler.unlink()
        problem.wait_for(state="detached", timeout=30_000)
        page.wait_for_selector("[data-do=start]:enabled", timeout=60_000)
        page.click("[data-do=start]")
        page.wait_for_selector("[data-phase=finished]", timeout=120_000)
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


def test_a_failed_opening_is_said_by_every_domain(place, pictures):
    federation, _, _, page = place
    study = draft(federation, "tampered", rounds=3, steps=4)
    study.submit()
    federation.approve(study)
    study.step(1)
    start_run(study)
    wait_until(study, lambda state: state.phase == "paused")
    (sum_path,) = (study.folder.state / "rounds" / "0001").glob("aggregate-*.safetensors")
    data = bytearray(sum_path.read_bytes())
    data[-100] ^= 1
    sum_path.write_bytes(data)
    notebook = shown(place, study)
    page.click("[data-do=start]")
    problem = page.locator(".fp-notice.fp-bad")
    problem.wait_for(timeout=120_000)
    notebook.screenshot(pictures / "error-opening.png")
    assert problem.inner_text().count("It was not opened") == 3
    assert "Next: " in problem.inner_text()
    page.wait_for_selector("[data-phase=stopped]", timeout=30_000)
