"""The page and the Markdown of a comparison in a browser and as text: readable at any width, in light and in dark."""

import re

import pytest

from fedpriv.experiments.comparison.bench import Comparison
from fedpriv.experiments.comparison.cases import PARTS, cases_of
from fedpriv.experiments.comparison.figures import charts_of
from fedpriv.experiments.comparison.leakage import LeakageRecord, leakage_cases
from fedpriv.experiments.comparison.methods import METHODS
from fedpriv.experiments.comparison.page import write_page
from fedpriv.experiments.comparison.summary_page import write_summary
from fedpriv.experiments.comparison.told import Told
from tests.browser.lab_page import browser_page, needs_browser
from tests.experiments.comparison.test_comparison_records import record
from tests.experiments.comparison.test_comparison_summary import leak

MANIFEST = {
    "command": "fedpriv bench figures --model tiny",
    "settings": {"model": "tiny", "tables": "made up", "rounds": 2, "steps": 4, "max_tokens": 64},
    "versions": {"torch": "2"},
    "machine": {"processor": "one", "cores": 2, "memory_gb": 8, "system": "Linux"},
}


@pytest.fixture(scope="module")
def told():
    """Every case there is, with three seeds."""
    records = [record(case) for case in cases_of(PARTS, list(METHODS), 3)]
    leaks = []
    for case in leakage_cases(list(METHODS)):
        found = leak(case.method, case.holder, -0.001 if case.method == "fedpriv" else 0.5)
        leaks.append(LeakageRecord(**dict(found) | {"case": case}))
    found = Comparison.of(records, leaks)
    charts = charts_of(records, leaks)
    return Told(charts=charts, rows=found.rows, targets=found.targets, claims=found.claims, manifest=MANIFEST)


@pytest.fixture(scope="module")
def page(told, tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("page") / "figures.html", told)


def test_every_verdict_and_the_rule_behind_it_stand_on_both(told, page, tmp_path):
    markdown = write_summary(tmp_path / "README.md", told).read_text()
    html = page.read_text()
    for judged in (*told.targets, *told.claims):
        assert f">{judged.verdict}<" in re.sub("[✓✗?] ", "", html)
        assert judged.measured in markdown
    for text in (html, markdown):
        assert "as far as the seeds agree" in text
        assert "-0%" not in text


def test_the_numbers_of_every_sweep_stand_below_its_picture(told, tmp_path):
    lines = write_summary(tmp_path / "README.md", told).read_text().splitlines()
    (bits,) = [line for line in lines if line.startswith("Over bits (fedpriv, after 2 rounds), held-out loss")]
    at = lines.index(bits)
    assert lines[at + 2] == "| bits of a value: | 4 | 6 | 8 | 10 | 12 | 16 |"
    (value,) = {cell.strip() for cell in lines[at + 4].split("|")[2:-1]}
    swept = next(p for chart in told.charts for p in chart.panels if p.title.startswith("Over bits (fedpriv, after"))
    assert float(value) == pytest.approx(swept.series[0].values[0], rel=1e-3)
    for chart in told.charts:
        for panel in chart.panels:
            assert (f"{panel.title}, {panel.value_title}:" in lines) == (panel.kind == "lines")


@needs_browser
@pytest.mark.timeout(120)
def test_nothing_is_cut_or_hard_to_read_at_any_width_in_light_and_dark(page):
    from axe_playwright_python.sync_playwright import Axe

    with browser_page() as browser:
        said = []
        browser.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        browser.set_content(page.read_text())
        for width, scheme in ((1200, "light"), (700, "dark"), (400, "dark")):
            browser.set_viewport_size({"width": width, "height": 900})
            browser.emulate_media(color_scheme=scheme)
            browser.wait_for_function(DRAWN)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
            assert browser.evaluate(OVER) == []
            if width > 400:
                found = Axe().run(browser)
                assert found.violations_count == 0, found.generate_report()
        ink = browser.evaluate("getComputedStyle(document.querySelector('.ytick text')).fill")
        assert ink == "rgb(236, 236, 236)"
        assert said == []
        assert browser.blocked == []


DRAWN = """() => {
  const figures = [...document.querySelectorAll("figure")];
  return figures.length > 10 && figures.every((figure) => {
    const [drawn] = figure.querySelectorAll(".main-svg");
    return drawn && Math.abs(drawn.getBoundingClientRect().width - figure.getBoundingClientRect().width) < 2;
  });
}"""
"""Whether every plot is as wide as its place."""

OVER = """() => [...document.querySelectorAll("figure")].flatMap((figure) => {
  const box = figure.getBoundingClientRect();
  return [...figure.querySelectorAll("svg text, .main-svg")].filter((item) => {
    const own = item.getBoundingClientRect();
    return own.width > 0 && (own.left < box.left - 1 || own.right > box.right + 1);
  }).map((item) => figure.innerText.slice(0, 40) + ": " + item.textContent.slice(0, 40));
})"""
"""What reaches over the edge of its figure."""
