"""``fedpriv lab``: JupyterLab on the notebooks, on its own or with a demo federation."""

from __future__ import annotations

import contextlib
import signal
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fedpriv.errors import ConfigError


def lab(
    demo: Annotated[
        bool, typer.Option("--demo", help="Start three domains on this machine first, or join those that run.")
    ] = False,
    model: Annotated[str, typer.Option(help="Base model of a new demo: tiny or smollm2-135m-instruct.")] = "tiny",
    domains: Annotated[int, typer.Option(min=2, max=16, help="Domains of a new demo.")] = 3,
    mimic: Annotated[
        Path | None, typer.Option(help="Folder with MIMIC-III tables for a new demo; without it, synthetic ones.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Make the demo anew, and throw away its studies.")] = False,
    work: Annotated[Path, typer.Option(help="Where the demo's parties are.")] = Path(".fedpriv/lab"),
    notebooks: Annotated[Path | None, typer.Option(help="Folder that JupyterLab shows; by default ours.")] = None,
    port: Annotated[int, typer.Option(min=1024, max=65_535, help="Port; the next free one if it is taken.")] = 8888,
    browser: Annotated[bool, typer.Option(help="Open a browser, too.")] = True,
) -> None:
    """Open JupyterLab on the notebooks. Nothing is fetched from the network; only this machine reaches it.

    With --demo the domains keep running until you end this; their studies are there the next time.
    """
    from fedpriv.experiments.lab import JOIN, JupyterLab, join_or_start, notebooks_folder

    if find_spec("jupyterlab") is None or find_spec("anywidget") is None:
        raise ConfigError("JupyterLab is not installed", todo="run `pip install 'fedpriv[lab]'`")
    if notebooks is not None and not notebooks.is_dir():
        raise ConfigError(f"There is no folder {notebooks}", kept="Nothing was started", todo="give one that is there")
    console = Console()
    with contextlib.ExitStack() as stack:
        environment = {}
        if demo:

            def say(sentence: str) -> None:
                console.print(f"[dim]•[/] {escape(sentence)}", highlight=False)

            federation = join_or_start(work, model=model, domains=domains, mimic=mimic, fresh=fresh, say=say)
            stack.callback(federation.close)
            environment[JOIN] = str(work.resolve())
            console.print(f"Domains: {escape(', '.join(federation.domains))}; base model {federation.model.name}.")
        arguments = (f"--ServerApp.port={port}", *(() if browser else ("--no-browser",)))
        server = JupyterLab(notebooks or notebooks_folder(Path.cwd()), environment, arguments)
        stack.callback(server.stop)
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            console.print(f"JupyterLab: [bold]{escape(server.start())}[/]", soft_wrap=True, highlight=False)
            console.print("Ctrl-C ends it" + (", and the domains." if demo else "."))
            server.wait()
        except KeyboardInterrupt:
            console.print("Ending JupyterLab" + (" and the domains." if demo else "."))


def _interrupt(_number: int, _frame: types.FrameType | None) -> None:
    raise KeyboardInterrupt
