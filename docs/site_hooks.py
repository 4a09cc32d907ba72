"""What mkdocs.yml cannot say: pages that other commands write, and how docstrings are shown."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

NOTEBOOKS = "build/docs/notebooks"
"""Where ``sh bootstrap.sh docs`` writes the notebooks, run: relative to mkdocs.yml."""
CHANGES = "CHANGELOG.md"
_ROLE = re.compile(r":(?:class|func|meth|attr|mod|data|exc):(?=<code>)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the notebooks that were run into the site, below ``notebooks``."""
    for path in _notebooks(config):
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Name the notebooks that were run at the end of the page about them, and fetch the changelog."""
    if page.file.src_uri == "changes.md":
        return (Path(config.config_file_path).parent / CHANGES).read_text(encoding="utf-8").replace("](docs/", "](")
    markdown = markdown.replace(f"](../{CHANGES})", "](changes.md)")
    names = [path.stem for path in _notebooks(config)]
    if page.file.src_uri != "notebooks.md" or not names:
        return markdown
    links = "\n".join(f"- [{name.replace('_', ' ')}](notebooks/{name}.html)" for name in names)
    return f"{markdown}\n\n## The notebooks, run\n\nWith their outputs, panels as pictures:\n\n{links}\n"


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave of a docstring's cross-references the names."""
    return _ROLE.sub("", html) if page.file.src_uri.startswith("api/") else html


def _notebooks(config: MkDocsConfig) -> list[Path]:
    return sorted((Path(config.config_file_path).parent / NOTEBOOKS).glob("*.html"))
