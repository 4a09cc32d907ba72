"""Every notebook runs from top to bottom on the tiny model, says what it is for, and is kept without outputs."""

import re
from pathlib import Path

import pytest

from fedpriv.experiments.lab import JOIN, open_or_create

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

TOLD = {
    "01_quick_start": "round 3",
    "02_a_data_owners_day": "revoked",
    "03_a_researchers_study": "parameters of LoRA",
    "04_steering_rounds_live": "adapter_model.safetensors",
    "05_your_own_recipe": "after two halved rounds",
    "06_what_an_attacker_sees": "the leakage rate is not measured",
    "07_the_papers_comparisons": "held-out loss after",
    "08_another_hospital": "ICD-9 codes are written without a dot",
    "09_asynchronous_across_clouds": "after 4 sums of 2 updates",
}
"""What each one has printed when it came to its end."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """The domains that notebooks join, as those of ``fedpriv lab --demo``."""
    work = tmp_path_factory.mktemp("lab") / "work"
    with open_or_create(work) as federation, pytest.MonkeyPatch.context() as patch:
        patch.setenv(JOIN, str(work))
        yield federation


def opened(path):
    import nbformat  # four seconds, in every worker of pytest that only looks what is here

    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_kept(path):
    import nbformat

    notebook = opened(path)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_the_notebooks_are_numbered_and_begin_with_what_they_are_for():
    for path in NOTEBOOKS:
        assert path.name[:2].isdigit()
        first = opened(path).cells[0]
        assert first.cell_type == "markdown"
        assert first.source.startswith("# ")
    assert set(TOLD) == {path.stem for path in NOTEBOOKS}


def executed(notebook, folder, timeout=280):
    """Run every cell, and return what was printed."""
    from nbclient import NotebookClient

    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    assert "Traceback" not in printed
    return printed


@pytest.mark.e2e
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.name[:2] != "07"], ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path, tmp_path, federation):
    assert TOLD[path.stem] in executed(opened(path), tmp_path)


@pytest.mark.e2e
def test_the_baselines_learn_alike_and_send_what_they_are_known_for(tmp_path, federation):
    (path,) = (path for path in NOTEBOOKS if path.stem == "07_the_papers_comparisons")
    printed = executed(opened(path), tmp_path)
    assert TOLD[path.stem] in printed
    rows = re.findall(r"^    (FL|HE-FL|DP-FL|fedpriv) .*?([0-9.,]+)  ", printed, re.MULTILINE)
    size, _, _, _, loss = (
        {name: float(value.replace(",", "")) for name, value in rows[at : at + 4]} for at in range(0, 20, 4)
    )
    assert loss["HE-FL"] == pytest.approx(loss["FL"], abs=2e-3)
    assert loss["fedpriv"] == pytest.approx(loss["FL"], abs=2e-3)
    assert size["HE-FL"] > 10 * size["FL"]
    assert size["fedpriv"] < 2 * size["FL"]


@pytest.mark.nightly
@pytest.mark.smollm2
@pytest.mark.timeout(1800)
def test_the_quick_start_runs_on_a_real_model(tmp_path):
    notebook = opened(NOTEBOOKS[0])
    chosen = [cell for cell in notebook.cells if 'MODEL = "tiny"' in cell.source and cell.cell_type == "code"]
    assert len(chosen) == 1
    chosen[0].source = chosen[0].source.replace('MODEL = "tiny"', 'MODEL = "smollm2-135m-instruct"')
    printed = executed(notebook, tmp_path, timeout=1500)
    assert TOLD[NOTEBOOKS[0].stem] in printed
    before, after = re.search(r"held-out loss ([0-9.]+) before, ([0-9.]+) after", printed).groups()
    assert float(after) < 0.7 * float(before)
