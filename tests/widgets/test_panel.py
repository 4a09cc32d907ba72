import base64
import re
import shutil
import subprocess

import pytest

from fedpriv.widgets.panel import STATIC, bundled

SCRIPTS = sorted(path.name for path in STATIC.glob("*.js"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_module_is_bundled_with_all_that_it_imports(name):
    text = bundled(name)
    assert 'from "./' not in text
    for found in re.findall(r"data:text/javascript;base64,([A-Za-z0-9+/=]+)", text):
        assert "export" in base64.b64decode(found).decode()


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_module_reads_html_or_reaches_a_network(name):
    text = (STATIC / name).read_text()
    without_svg = text.replace("http://www.w3.org/2000/svg", "")
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "http:",
        "https:",
        "fetch(",
    ):
        assert word not in without_svg, word


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to read JavaScript")
@pytest.mark.parametrize("name", SCRIPTS)
def test_it_is_javascript(name, tmp_path):
    module = tmp_path / name.replace(".js", ".mjs")
    shutil.copy(STATIC / name, module)
    checked = subprocess.run(["node", "--check", module], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_every_rule_of_the_stylesheet_is_about_our_panels_only():
    text = re.sub(r"/\*.*?\*/", "", (STATIC / "panel.css").read_text(), flags=re.S)
    text = re.sub(r"@media[^{]*\{(.*?\})\s*\}", r"\1", text, flags=re.S)
    for selectors in re.findall(r"([^{}]+)\{", text):
        for selector in selectors.split(","):
            assert ".fedpriv" in selector, selector
