"""Run every notebook and write it as a page that needs no server: sh bootstrap.sh docs

The pages go to build/docs/notebooks. They show what the notebooks showed, panels as still pictures of their state; the
notebooks themselves stay without outputs. Takes two minutes, with the tiny model and a demo federation of its own.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from fedpriv.experiments.lab import JOIN, open_or_create

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "docs" / "notebooks"
SHOWN = ("text/html", "image/svg+xml", "image/png", "text/plain")
"""Without a kernel a widget shows nothing: what else its cell gave is taken."""


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    exporter = HTMLExporter(embed_images=True)
    exporter.mathjax_url = exporter.require_js_url = ""  # nothing is fetched when a page is read
    with tempfile.TemporaryDirectory() as scratch, open_or_create(Path(scratch) / "lab"):
        os.environ[JOIN] = str(Path(scratch) / "lab")
        for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
            begun = time.monotonic()
            notebook = nbformat.read(path, as_version=4)
            folder = Path(scratch) / path.stem
            folder.mkdir()
            NotebookClient(
                notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
            ).execute()
            for cell in notebook.cells:
                for output in cell.get("outputs", []):
                    if "data" in output:
                        output.data = {kind: output.data[kind] for kind in SHOWN if kind in output.data}
            notebook.metadata.pop("widgets", None)
            page, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": path.stem}})
            (OUT / f"{path.stem}.html").write_text(page, encoding="utf-8")
            print(f"{path.stem}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    print(OUT)


if __name__ == "__main__":
    main()
