"""The documentation site: no warning, links that lead somewhere, nothing loaded from elsewhere."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

needs_mkdocs = pytest.mark.skipif(
    find_spec("mkdocs") is None or find_spec("material") is None or find_spec("mkdocstrings") is None,
    reason="mkdocs-material and mkdocstrings are not installed: pip install -e '.[docs]'",
)


# -- the site ----------------------------------------------------------------------------------------------------------


def build(folder, *, config=ROOT / "mkdocs.yml"):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", config, "--site-dir", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Every page of the built site, parsed, by its path in it."""
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder, {
        path.relative_to(folder).as_posix(): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in sorted(folder.rglob("*.html"))
    }


@needs_mkdocs
def test_every_page_of_docs_is_in_the_site_and_can_be_found(site):
    folder, pages = site
    for path in (ROOT / "docs").rglob("*.md"):
        name = path.relative_to(ROOT / "docs").with_suffix(".html").as_posix().replace("README.html", "index.html")
        assert name in pages
        assert pages[name].find("h1") is not None, name
    found = (folder / "search" / "search_index.js").read_text(encoding="utf-8")
    for name in ("tutorial.html", "threat_model.html", "api/protection.html", "errors.html#plane"):
        assert name.lower() in found.lower()


@needs_mkdocs
def test_every_link_and_anchor_leads_somewhere(site):
    folder, pages = site
    wrong = []
    names = {page: {tag["id"] for tag in soup.find_all(id=True)} for page, soup in pages.items()}
    for page, soup in pages.items():
        if page == "404.html":  # its links are from the root of a server
            continue
        for tag in soup.find_all("a", href=True):
            to = urlsplit(tag["href"])
            if to.scheme or to.netloc:
                continue
            target = (folder / page).parent.joinpath(unquote(to.path)).resolve() if to.path else folder / page
            inside = target.relative_to(folder.resolve()).as_posix() if target.is_relative_to(folder.resolve()) else ""
            if not target.is_file() or (to.fragment and unquote(to.fragment) not in names.get(inside, ())):
                wrong.append(f"{page}: {tag['href']}")
    assert len(pages) > 30
    assert not wrong


@needs_mkdocs
def test_no_page_loads_anything_from_elsewhere(site):
    folder, pages = site
    loaded = []
    for page, soup in pages.items():
        for tag in soup.find_all(["script", "img", "source", "iframe", "video", "audio", "embed"], src=True):
            loaded.append((page, tag["src"]))
        for tag in soup.find_all("link", href=True):
            loaded.append((page, tag["href"]))
        loaded += [(page, tag["data"]) for tag in soup.find_all("object", attrs={"data": True})]
        loaded += [(page, to) for style in soup.find_all("style") for to in re.findall(r"url\(([^)]*)\)", style.text)]
    for path in folder.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        loaded += [(path.name, to) for to in re.findall(r"(?:url\(|@import\s)[\"']?(?!data:)([^\"')]+)", text)]
    assert len(loaded) > len(pages)
    outside = [(page, to) for page, to in loaded if urlsplit(to).scheme not in {"", "data"} or urlsplit(to).netloc]
    assert not outside


@needs_mkdocs
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"more.md": "# More\n"}, "more.md"),
        ({"index.md": "# Start\n\n[there](nowhere.md)\n"}, "nowhere.md"),
        ({"index.md": "# Start\n\n[there](#nowhere)\n"}, "#nowhere"),
    ],
)
def test_a_lost_page_link_or_anchor_ends_the_build(tmp_path, changed, said):
    """The settings of mkdocs.yml, on a site of one page: they must be able to fail."""
    (tmp_path / "docs").mkdir()
    for name, text in {"index.md": "# Start\n", **changed}.items():
        (tmp_path / "docs" / name).write_text(text)
    kept = ("strict:", "validation:", "  nav: {", "  links: {")
    lines = [line for line in (ROOT / "mkdocs.yml").read_text(encoding="utf-8").splitlines() if line.startswith(kept)]
    assert len(lines) == len(kept)
    (tmp_path / "mkdocs.yml").write_text("\n".join(["site_name: one page", *lines, "nav: [index.md]", ""]))
    done = build(tmp_path / "site", config=tmp_path / "mkdocs.yml")
    assert done.returncode != 0
    assert said in done.stderr


def test_every_test_that_the_threat_model_names_exists():
    text = (ROOT / "docs" / "threat_model.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests|benchmarks)/[^`]*\.py)`", text))
    assert len(named) > 15
    assert not {name for name in named if not (ROOT / name).is_file()}
