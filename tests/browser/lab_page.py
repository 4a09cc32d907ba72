"""A real JupyterLab in a real browser: started with folders of its own, offline, and driven by what a person can do."""

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedpriv.experiments.lab import JupyterLab
from fedpriv.researcher import Study

CHROMIUM = next((path for path in map(Path, ("/usr/bin/chromium", "/usr/bin/google-chrome")) if path.exists()), None)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
WIDTH, HEIGHT = 1280, 800

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Debian's package chromium (apt-get install chromium)"
)


@contextmanager
def jupyter(folder, environment=None):
    """Run JupyterLab on a folder, with configuration of its own beside it, and give its address."""
    private = folder.parent / f"{folder.name}-jupyter"
    dirs = {f"JUPYTER_{name.upper()}_DIR": str(private / name) for name in ("config", "data", "runtime")} | {
        f"JUPYTERLAB_{name.upper()}_DIR": str(private / name) for name in ("settings", "workspaces")
    }
    for path in dirs.values():
        Path(path).mkdir(parents=True, exist_ok=True)
    notebook = Path(dirs["JUPYTERLAB_SETTINGS_DIR"]) / "@jupyterlab" / "notebook-extension"
    notebook.mkdir(parents=True, exist_ok=True)
    # Otherwise cells that are out of sight are not in the page.
    (notebook / "tracker.jupyterlab-settings").write_text(json.dumps({"windowingMode": "none"}))
    arguments = ("--no-browser", "--expose-app-in-browser", "--ServerApp.port=0")
    before = {name: os.environ.get(name) for name in dirs}
    os.environ.update(dirs)  # this process looks for the server's address where the server writes it
    server = JupyterLab(folder, {**dirs, **(environment or {})}, arguments)
    try:
        yield server.start()
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def browser_page(*flags):
    """Give a page of a browser that reaches nothing but this machine; what it tried beyond that is in ``.blocked``."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=[*FLAGS, *flags])
        context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
        page = context.new_page()
        page.blocked = []

        def route(request):
            if "://127.0.0.1" in request.request.url or request.request.url.startswith(("data:", "blob:")):
                request.continue_()
            else:
                page.blocked.append(request.request.url)
                request.abort()

        context.route("**/*", route)
        try:
            yield page
        finally:
            browser.close()


@contextmanager
def stopping_studies(researcher):
    """Stop every run that a panel started in the background, whatever happened in the test."""
    try:
        yield
    finally:
        for folder in researcher.studies.glob("*/"):
            Study.open(researcher, folder.name).stop()


def write_notebook(path, *cells):
    """Write a notebook of code cells."""
    import nbformat  # four seconds, in every worker of pytest that only looks what is here

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


class NotebookPage:
    """One notebook in a page."""

    def __init__(self, page, url, name):
        self.page = page
        base, _, token = url.partition("lab?")
        page.goto(f"{base}lab/tree/{name}?{token}&reset")
        page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext", timeout=60_000)
        self.wait_for_kernel()

    def wait_for_kernel(self):
        self.page.evaluate(
            """async () => {
                const session = window.jupyterapp.shell.currentWidget.sessionContext;
                await session.ready;
                await session.session.kernel.info;
            }"""
        )
        self.wait_until_idle()

    def wait_until_idle(self, timeout_s=120):
        self.page.wait_for_selector(
            '.jp-Notebook-ExecutionIndicator[data-status="idle"]', state="attached", timeout=timeout_s * 1000
        )

    def run_all(self):
        """Run every cell, and return the text of the first error if there is one."""
        self.page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        self.wait_until_idle()
        return self.page.evaluate(  # the page itself shows an error like anything that a cell wrote to stderr
            """() => {
                const cells = window.jupyterapp.shell.currentWidget.content.model.toJSON().cells;
                const errors = cells.flatMap((cell) => cell.outputs ?? []).filter((put) => put.output_type === 'error');
                return errors.length ? `${errors[0].ename}: ${errors[0].evalue}` : '';
            }"""
        )

    def restart(self):
        """Restart the kernel as a person would, without the question."""
        self.page.evaluate(
            """async () => {
                const session = window.jupyterapp.shell.currentWidget.sessionContext;
                await session.session.kernel.restart();
                await session.session.kernel.info;
            }"""
        )
        self.wait_until_idle()

    def ask_kernel(self, expression):
        """Return the value of a Python expression in the kernel, as text, without leaving a trace."""
        return self.page.evaluate(
            """async (code) => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                const future = kernel.requestExecute({code: '', silent: true, user_expressions: {found: code}});
                const reply = await future.done;
                const found = reply.content.user_expressions.found;
                return found.status === 'ok' ? found.data['text/plain'] : found.evalue;
            }""",
            expression,
        )

    def theme(self, name):
        """Switch to "JupyterLab Light" or "JupyterLab Dark"."""
        self.page.evaluate("name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})", name)
        light = str("Light" in name).lower()
        self.page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")
        time.sleep(0.3)

    def panel(self):
        """The first panel of ours."""
        return self.page.locator(".fedpriv").first

    def screenshot(self, path):
        """Take the window as a person sees it, with the panel's top in sight."""
        self.panel().scroll_into_view_if_needed()
        self.page.screenshot(path=str(path))

    def serious(self):
        """Return axe-core's serious and critical findings inside our panels, one line each."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page, context=".fedpriv").response["violations"]
        return [
            f"{violation['id']}: {violation['help']}: {node['html'][:160]}"
            for violation in found
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]

    def cut_off(self):
        """Return our elements that stick out of their panel, or whose words do not fit."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll('.fedpriv')].flatMap((panel) => {
                const edge = panel.getBoundingClientRect();
                return [...panel.querySelectorAll('*')].filter((node) => {
                    const box = node.getBoundingClientRect();
                    const scrolls = node.closest('.fp-scroll, .fp-hidden');
                    return box.width > 0 && !scrolls && (box.right > edge.right + 1 || box.left < edge.left - 1);
                }).map((node) => node.outerHTML.slice(0, 120));
            })"""
        )
