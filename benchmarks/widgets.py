"""How fast is the researcher's panel in a real JupyterLab, and does it hold up the kernel? Prints JSON.

    python benchmarks/widgets.py                     16 domains, 1000 rounds: two minutes on two quiet cores

A study of 16 domains is told to its history by this process, as a run would: first nothing, then for ten seconds four
rounds a second with progress between them, then rounds as fast as the panel reads them, up to 1000. The panel is drawn
by a headless Chromium (Debian's package) of 1280 x 800.

Reported: seconds from running the panel's cell to its first paint; updates of the loss chart a second; the longest that
the kernel's event loop was held up (a task that sleeps 5 ms and notes how late it wakes), while nothing is shown, and
with the panel at work, in milliseconds; resident memory of the kernel and the page's heap after 300 and after all
rounds, in MB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the browser harness is the tests'

from fedpriv.protection import IdentityKeys
from fedpriv.researcher import Researcher, ResearcherConfig, Study
from fedpriv.researcher.live import LiveFile
from fedpriv.study import Plan
from fedpriv.study.plan import BaseModelChoice, MemberChoice, TrainingChoice
from fedpriv.training.recipe import stock_recipe
from tests.browser.lab_page import NotebookPage, browser_page, jupyter, write_notebook
from tests.widgets.busy_study import emails, one_round, opening, progress

TELLING_S, ROUNDS_A_SECOND = 10.0, 4
CELLS = (
    "import asyncio, os, time\n"
    "from pathlib import Path\n"
    "import psutil\n"
    "from fedpriv.researcher import Researcher, Study\n"
    "from fedpriv.widgets.round_control import RoundControl\n"
    "worst = 0.0\n"
    "async def probe():\n"
    "    global worst\n"
    "    while True:\n"
    "        begun = time.perf_counter()\n"
    "        await asyncio.sleep(0.005)\n"
    "        worst = max(worst, time.perf_counter() - begun - 0.005)\n"
    "probing = asyncio.get_event_loop().create_task(probe())\n"
    "study = Study.open(Researcher.open(Path(HOME)), 'busy')\n",
    "control = RoundControl(study)\ncontrol",
)
PAINTED = """async () => {
    const begun = performance.now();
    const app = window.jupyterapp;
    app.commands.execute('notebook:run-cell');
    while (!document.querySelector('.fedpriv h2')) await new Promise(requestAnimationFrame);
    return (performance.now() - begun) / 1000;
}"""
COUNTING = """() => {
    window.updates = 0;
    new MutationObserver((changes) => {
        const inChart = (one) => one.attributeName === 'd' && one.target.closest('[data-chart="Held-out loss"]');
        if (changes.some(inChart)) window.updates += 1;
    }).observe(document.querySelector('.fedpriv'), {subtree: true, attributes: true, childList: true});
}"""


def make_study(home: Path, members: tuple[str, ...], rounds: int) -> Study:
    researcher = Researcher.create(home, ResearcherConfig(name="ada", email="ada@y.org", store=str(home / "store")))
    keys = {email: IdentityKeys.create(email, email.partition("@")[0], "11" * 32) for email in members}
    plan = Plan(
        title="A large study",
        researcher=MemberChoice(email="ada@y.org", fingerprint=researcher.keys.fingerprint),
        cohort=tuple(MemberChoice(email=email, fingerprint=key.fingerprint) for email, key in keys.items()),
        base_model=BaseModelChoice(name="tiny"),
        training=TrainingChoice(rounds=rounds),
    )
    study = Study.create(researcher, "busy", plan, recipe=stock_recipe())
    study.folder.freeze(study.folder.draft())
    return study


def tell(study: Study, events) -> None:
    for event in events:
        study.history(event)


def tell_slowly(study: Study, members: tuple[str, ...]) -> int:
    """Tell rounds in real time, with progress between them; return the number of the last."""
    live, number, end = LiveFile(study.folder.state), 0, time.monotonic() + TELLING_S
    while time.monotonic() < end:
        number += 1
        tell(study, one_round(members, number))
        for step in range(5):
            for email in members:
                live(progress(email, number, step, 5, time.time()))
            time.sleep(1 / ROUNDS_A_SECOND / 5)
    return number


def memory(notebook: NotebookPage) -> dict[str, float]:
    kernel = float(notebook.ask_kernel("psutil.Process().memory_info().rss")) / 1e6
    notebook.page.evaluate("window.gc && window.gc()")
    heap = notebook.page.evaluate("performance.memory.usedJSHeapSize") / 1e6
    return {"kernel_mb": round(kernel, 1), "page_mb": round(heap, 1)}


def until_shown(notebook: NotebookPage, number: int) -> None:
    notebook.page.wait_for_function(
        "(n) => document.querySelector('.fp-rounds')?.textContent.startsWith(`${n} of`)", arg=number, timeout=120_000
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domains", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1000)
    options = parser.parse_args()
    members = emails(options.domains)
    with tempfile.TemporaryDirectory() as scratch:
        study = make_study(Path(scratch) / "ada", members, options.rounds)
        tell(study, opening(members, options.rounds))
        folder = Path(scratch) / "notebooks"
        folder.mkdir()
        first = CELLS[0].replace("HOME", repr(str(study.researcher.root)))
        write_notebook(folder / "busy.ipynb", first, CELLS[1])
        with jupyter(folder) as url, browser_page("--js-flags=--expose-gc", "--enable-precise-memory-info") as page:
            notebook = NotebookPage(page, url, "busy.ipynb")
            page.evaluate("window.jupyterapp.commands.execute('notebook:run-cell-and-select-next')")
            notebook.wait_until_idle()
            time.sleep(3)
            idle = float(notebook.ask_kernel("worst"))
            paint = page.evaluate(PAINTED)
            notebook.wait_until_idle()
            opened = float(notebook.ask_kernel("worst"))
            notebook.ask_kernel("globals().update(worst=0.0)")
            page.evaluate(COUNTING)
            begun = time.monotonic()
            number = tell_slowly(study, members)
            rate = page.evaluate("window.updates") / (time.monotonic() - begun)
            at_work = float(notebook.ask_kernel("worst"))
            tell(study, (event for n in range(number + 1, 301) for event in one_round(members, n)))
            until_shown(notebook, min(300, options.rounds))
            time.sleep(2)
            early = memory(notebook)
            tell(study, (event for n in range(301, options.rounds + 1) for event in one_round(members, n)))
            until_shown(notebook, options.rounds)
            time.sleep(2)
            late = memory(notebook)
            blocked = page.blocked
    result = {
        "domains": options.domains,
        "first_paint_s": round(paint, 3),
        "chart_updates_a_second": round(rate, 2),
        "loop_held_up_ms": {
            "idle": round(1000 * idle, 1),
            "opening": round(1000 * opened, 1),
            "at_work": round(1000 * at_work, 1),
        },
        "memory": {"300": early, str(options.rounds): late},
        "requests_beyond_this_machine": blocked,
    }
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
