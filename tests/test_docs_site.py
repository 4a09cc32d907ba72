"""The documentation site: no warning, links that lead somewhere, nothing loaded, commands that exist and run."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from functools import cache
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


# -- commands ----------------------------------------------------------------------------------------------------------

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(?:sudo -u fedpriv )?(fedpriv [a-z][^`]*)`")
AS_ITS_USER = re.compile(r"^(\s*)sudo -u fedpriv ")


def commands(page):
    """Yield every ``fedpriv ...`` of a page, as a person would type it: in shell blocks, indented, and in sentences."""
    text = page.read_text(encoding="utf-8")
    shells = [match[3] for match in FENCE.finditer(text) if match[2] in {"", "sh", "console", "bash"}]
    prose = FENCE.sub("", text)
    shells.append("\n".join(line for line in prose.splitlines() if line.startswith("    ")))
    for block in shells:
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for part in re.split(r"[;|&]+|\bdo\b|\$\(|\)$|\(umask \d+", AS_ITS_USER.sub(r"\1", line)):
                if re.match(r"\s*(\$ )?fedpriv [a-z]", part):
                    yield part.strip().removeprefix("$ ")
    yield from (re.sub(r"\s+", " ", match[1]) for match in INLINE.finditer(prose))


def words_of(command):
    """Split a command into words: without its comment, redirections and the three dots of more of the same."""
    command = re.sub(r"[<>]\s*\S*", "", re.split(r"\s#|\s{3,}[a-z{]", command)[0])
    return [word for word in shlex.split(command)[1:] if word not in {"...", "…"}]


@cache
def program():
    from typer.main import get_command

    from fedpriv.cli.main import app

    return get_command(app)


def unknown(command):
    """What of a command fedpriv does not know, or nothing."""
    here, words = program(), words_of(command)
    while hasattr(here, "commands"):
        if not words or words == ["--help"]:
            return None
        names = words.pop(0).split("|")
        if missing := [name for name in names if name not in here.commands]:
            return f"{command}: there is no command {missing[0]}"
        here = here.commands[names[0]]
    names = {name for parameter in here.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    for word in words:
        if word.startswith("-") and word.split("=")[0] not in names:
            return f"{command}: there is no option {word}"
    return None


def test_every_command_of_the_pages_exists():
    found = [(page.name, command) for page in PAGES for command in commands(page)]
    assert len(found) > 150
    assert {"README.md", "operating.md", "tutorial.md", "benchmarks.md"} <= {name for name, _ in found}
    assert not [f"{name}: {what}" for name, command in found if (what := unknown(command))]


def test_every_command_that_the_program_names_exists():
    """In errors, in what it prints, and on the pages that it makes."""
    named = re.compile(r"(?:`|<code>)(fedpriv [a-z]+ [a-z-][^`<\n]*)(?:`|</code>)")  # else it is chosen as it runs
    files = [path for path in (ROOT / "fedpriv").rglob("*") if path.suffix in {".py", ".html", ".js"}]
    found = [(path.name, command) for path in files for command in named.findall(path.read_text("utf-8"))]
    assert len(found) > 60
    assert "report.html" in {name for name, _ in found}
    assert not [f"{name}: {what}" for name, command in found if (what := unknown(command))]


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("fedpriv domain frobnicate micu", "frobnicate"),
        ("fedpriv study run icu --detached", "--detached"),
        ("fedpriv data inspect|sharden", "sharden"),
        ("fedpriv nothing", "nothing"),
    ],
)
def test_a_command_that_does_not_exist_is_found(command, what):
    assert what in unknown(command)


# -- the tutorial ------------------------------------------------------------------------------------------------------


def steps():
    """Yield the commands of each shell block of the tutorial, and what the page says that they print."""
    blocks = [(match[2], match[3]) for match in FENCE.finditer((ROOT / "docs" / "tutorial.md").read_text("utf-8"))]
    for number, (kind, text) in enumerate(blocks):
        if kind == "sh":
            following = blocks[number + 1] if number + 1 < len(blocks) else ("", "")
            yield text, following[1] if following[0] == "text" else None


def without_chance(text):
    """A text without what differs from run to run: keys, numbers, where lines are broken."""
    text = re.sub(r"\b[0-9a-f]{8,}\b", "KEY", text)
    return re.sub(r"\s+", " ", re.sub(r"\d[\d,.]*", "0", text)).strip()


def missing(shown, printed):
    """What of the shown text was not printed, in its order; ``[...]`` stands for anything."""
    rest = without_chance(printed)
    for part in filter(None, map(without_chance, shown.split("[...]"))):
        _, found, rest = rest.partition(part)
        if not found:
            return part
    return None


@pytest.mark.e2e
def test_the_tutorial_does_what_it_says(tmp_path):
    todo = list(steps())
    mark = "==== step"
    script = "".join(f"echo '{mark}'\n{commands}" for commands, _ in todo)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "80"}
    with subprocess.Popen(
        ["/bin/sh", "-eu", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # services that a failed step left
    assert process.returncode == 0, printed[-3000:]
    outputs = printed.split(f"{mark}\n")[1:]
    assert len(outputs) == len(todo) > 8
    said = [(shown, output) for (_, shown), output in zip(todo, outputs, strict=True) if shown]
    assert not [lost for shown, output in said if (lost := missing(shown, output))]
    assert len(said) > 6


def test_what_was_not_printed_is_found():
    assert missing("3 rounds\n[...]\nloss 6.1\n[...]", "2 rounds\n\nbegin\nloss 5.99 now") is None
    assert missing("loss 1\n[...]\n2 rounds", "2 rounds\nloss 6.1") == "0 rounds"
