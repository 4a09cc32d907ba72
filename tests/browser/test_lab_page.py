"""What drives JupyterLab in the other tests sees a cell that fails."""

import pytest

pytest.importorskip("playwright")

from tests.browser.lab_page import NotebookPage, browser_page, jupyter, needs_browser, write_notebook

pytestmark = [pytest.mark.e2e, needs_browser]


def test_the_first_error_of_a_notebook_is_said(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write_notebook(folder / "failing.ipynb", "import sys\nprint('no error', file=sys.stderr)", "[][1]", "1 / 0")
    with jupyter(folder) as url, browser_page() as page:
        assert NotebookPage(page, url, "failing.ipynb").run_all() == "IndexError: list index out of range"
