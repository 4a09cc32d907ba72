"""Every command that the documentation names exists, and is run: the tutorial's as it stands there, others after it."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedpriv.domain import Domain
from fedpriv.protection import fingerprint_words
from fedpriv.researcher import Researcher, Study
from tests.e2e.conftest import start, wait_for
from tests.e2e.test_absence import records

__all__ = ["start"]  # a fixture

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

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


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """The tutorial, run in an empty folder: where, and what each step printed."""
    folder, todo = tmp_path_factory.mktemp("tutorial"), list(steps())
    mark = "==== step"
    script = "".join(f"echo '{mark}'\n{commands}" for commands, _ in todo)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "80"}
    with subprocess.Popen(
        ["/bin/sh", "-eu", "-c", script],
        cwd=folder,
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
    return folder, printed.split(f"{mark}\n")[1:]


@pytest.mark.e2e
def test_the_tutorial_does_what_it_says(tutorial):
    todo, (_, outputs) = list(steps()), tutorial
    assert len(outputs) == len(todo) > 8
    said = [(shown, output) for (_, shown), output in zip(todo, outputs, strict=True) if shown]
    assert not [lost for shown, output in said if (lost := missing(shown, output))]
    assert len(said) > 6


def test_what_was_not_printed_is_found():
    assert missing("3 rounds\n[...]\nloss 6.1\n[...]", "2 rounds\n\nbegin\nloss 5.99 now") is None
    assert missing("loss 1\n[...]\n2 rounds", "2 rounds\nloss 6.1") == "0 rounds"


# -- all other commands ------------------------------------------------------------------------------------------------

MEMBERS = ("micu", "sicu", "ccu")
READING = """
doctor
domain requests micu
domain show micu {ID}
domain status micu
domain keys micu
domain keys micu --check {WORDS}
domain keys micu --renew
domain budget micu
domain log micu {ID}
domain ledger show micu
domain ledger verify micu --holds {DIGEST}
domain ledger export micu --out ledger.html
domain schema micu --out heart.json
domain schema sicu --out north.json
domain compare heart.json north.json
domain refresh micu
domain backup micu micu.backup --passphrase-file phrase
domain restore micu.backup unused --check --passphrase-file phrase
domain restore micu.backup again --passphrase-file phrase
study status icu
study events icu
study events icu --json
study events icu --follow
study watch icu
store check store --email micu@hospital.example
"""
"""By the parties of the tutorial, after it."""

PREPARING = """
data synthesize heart --schema ccu
data inspect heart --mapping {ROOT}/domains/ccu/mapping.yaml
data inspect tables
data harmonize heart --check --mapping {ROOT}/domains/ccu/mapping.yaml --report fit.html
data harmonize tables --check
data shard tables --by hash --domains 2 --out halves
domain init heart-domain --email ccu@north.example --store store --data heart \
    --mapping {ROOT}/domains/ccu/mapping.yaml --sandbox required --metrics-port 9464
domain trust heart-domain ada@lab.example={FINGERPRINT}
model add our-model --folder {MODEL}
model list
model check our-model
model remove our-model
flower app relay
study peers
study new unequal --model tiny --weights paper --alpha 0.5 --quorum 3 --patience 600 --bits-choices 4,6,10
study new late --model tiny --mode buffered --buffer 3 --averaging b_only --server momentum --proximal 0.1
study new four --model tiny --quorum 3 --averaging b_only --domain micu@north.example={OTHERS[0]} \\
    --domain sicu@north.example={OTHERS[1]} --domain ccu@north.example={OTHERS[2]} \\
    --domain heart@north.example={OTHERS[3]}
study new private --model tiny --epsilon 8
study new deaths --model tiny --task mortality --window-hours 24
"""
"""What needs neither a service nor a study."""

DECIDING = """
domain approve micu {NEW} --rounds 5 --days 30 --hours 19:00-07:00
domain revoke micu {NEW} --reason "our keys were stolen"
domain reject sicu {NEW} --reason "no vote of the ethics committee"
"""
"""About a request that is new."""

STEERING = """
study pause ward
study set ward --alpha 1
study set ward --patience 60
study exclude ward ccu@hospital.example
study readmit ward ccu@hospital.example
study stop ward
"""
"""About a study that is at work in another process, which the last of them ends."""

ELSEWHERE = {
    "audit leakage": "cli/test_audit_command.py",
    "bench data": "experiments/test_data_bench.py",
    "bench domain": "experiments/test_domain_bench.py",
    "bench figures": "experiments/comparison/test_figures_bench.py",
    "bench protection": "experiments/test_protection_bench.py",
    "bench rounds": "experiments/test_rounds_bench.py",
    "bench training": "experiments/test_training_bench.py",
    "demo": "e2e/test_demo.py",
    "domain accept-loss": "e2e/test_lost_machine.py",
    "domain release": "e2e/test_kill.py",
    "domain try": "cli/test_review_command.py",
    "domain withhold": "e2e/test_kill.py",
    "lab": "experiments/test_lab.py",
    "study sample": "cli/test_sample_command.py",
    "study sensitivity": "cli/test_sensitivity_command.py",
}
"""Where a command takes long, or needs a place of its own: which test runs it."""

REFUSED = {"study skip icu": "The study is finished", "domain accept-loss micu": "The store shows no loss"}
"""What has nothing to do after the tutorial says so."""

NOT_RUN = {
    "bench crosscloud": "takes ten minutes and root; tests/experiments/crosscloud runs its parts",
    "bench figures --mimic": "is the same with a hospital's tables in place of made-up ones",
    "bench training --tables": "is the same with a hospital's tables in place of made-up ones",
    "bench flower": "needs Flower's own environment; tests/flower runs what it measures",
    "demo --epsilon": "is the demo with one more setting of its plan; tests/e2e/test_private_study.py runs one",
    "model add --hub --revision": "needs a hub; tests/training/test_added_models.py has one of its own",
}


def walked(text):
    """Yield the commands of a walk as lists of words."""
    for line in text.replace("\\\n", " ").strip().splitlines():
        yield shlex.split(line)


def run(words, folder):
    """Run a command in this process, as its user would in that folder."""
    from fedpriv.cli.main import app

    with contextlib.chdir(folder):
        return CliRunner().invoke(app, words, env={"COLUMNS": "200"})


def walk(text, folder, **names):
    for words in walked(text):
        filled = [part for word in words for part in word.format(**names).split("\0")]
        done = run(filled, folder)
        assert done.exit_code == 0, (filled, done.output, done.exception)


def study_of(folder, name):
    return Study.open(Researcher.open(folder / ".fedpriv" / "researcher"), name)


@pytest.fixture(scope="module")
def after(tutorial):
    """The folder of the tutorial, and what the commands of others need to know of it."""
    folder, _ = tutorial
    fingerprint = Domain.open(folder / "micu").keys.fingerprint
    verified = run(["domain", "ledger", "verify", "micu"], folder).output
    (folder / "phrase").touch(0o600)
    (folder / "phrase").write_text("nine words that nobody else would ever think of\n")
    return folder, {
        "ID": study_of(folder, "icu").folder.submitted_id()[:12],
        "FINGERPRINT": fingerprint,
        "OTHERS": [digit * 64 for digit in "1234"],
        "WORDS": "\0".join(fingerprint_words(fingerprint).split()),
        "DIGEST": re.search(r"\b[0-9a-f]{64}\b", verified)[0],
        "ROOT": ROOT,
    }


@pytest.mark.e2e
def test_what_the_pages_say_about_a_study_that_is_over_can_be_done(after):
    folder, names = after
    walk(READING, folder, **names)
    for command, sentence in REFUSED.items():
        done = run(command.split(), folder)
        assert done.exit_code != 0
        assert sentence in str(done.exception)


@pytest.mark.e2e
def test_what_the_pages_say_about_data_models_and_plans_can_be_done(after, tmp_path):
    from fedpriv.training.base_model import ensure_model

    folder, names = after
    walk(PREPARING, folder, **names, MODEL=ensure_model("tiny", cache=tmp_path).folder)


@pytest.fixture
def served(after, start):
    """The domains of the tutorial, at work again."""
    folder, _ = after
    for name in MEMBERS:
        start("domain", "serve", name, "--log-format", "json", cwd=folder)
    return folder


def submitted(folder, name, *, options):
    """Write and submit a study of two rounds, and return it once every domain has the request."""
    walk(f"study new {name} --model tiny --rounds 2 {options}\nstudy submit {name}", folder)
    study = study_of(folder, name)
    for member in MEMBERS:
        holds = partial(Domain.open(folder / member).requests.holds, study.folder.submitted_id())
        wait_for(holds, seconds=60, what="the request to arrive")
    return study


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_what_the_pages_say_about_a_study_at_work_can_be_done(served, start):
    folder = served
    walk(DECIDING, folder, NEW=submitted(folder, "refused", options="--steps 2").folder.submitted_id()[:12])
    study = submitted(folder, "ward", options="--weights paper --quorum 3 --patience 120")
    approve = f"domain approve {{member}} {study.folder.submitted_id()[:12]}\n"
    walk("".join(approve.format(member=member) for member in MEMBERS), folder)
    walk("study step ward --rounds 1", folder)
    running = start("study", "run", "ward", "--report-to", "tensorboard", cwd=folder)
    wait_for(lambda: records(study, "RoundFinished"), seconds=200, what="the first round")
    walk(STEERING, folder)
    assert running.wait(60) != 0, "it was stopped"
    walk("study resume ward", folder)
    assert len(records(study, "RoundFinished")) == 2


def parsed(words):
    """Return a command's name and the options that it has."""
    here, names = program(), []
    words = list(words)
    while hasattr(here, "commands") and words and words[0] in here.commands:
        names.append(words.pop(0))
        here = here.commands[names[-1]]
    return " ".join(names), {word.split("=")[0] for word in words if word.startswith("-")} - {"--help"}, here


def run_here():
    """Yield every command that the tests above run."""
    for text in (READING, PREPARING, DECIDING, STEERING):
        yield from walked(text)
    yield from map(str.split, REFUSED)
    yield from (words_of(command) for page in PAGES if page.name == "tutorial.md" for command in commands(page))
    yield from (["study", "step", "ward", "--rounds", "1"], ["study", "resume", "ward"])
    yield ["study", "run", "ward", "--report-to", "tensorboard"]
    yield ["domain", "serve", "micu", "--log-format", "json"]


def test_every_command_of_the_pages_is_run_by_a_test():
    done = {}
    for words in run_here():
        name, options, _ = parsed(words)
        done.setdefault(name, set()).update(options)
    left = []
    for page in PAGES:
        for command in commands(page):
            name, options, here = parsed(words_of(command))
            options -= {option for entry in NOT_RUN if entry.startswith(f"{name} --") for option in entry.split()}
            if hasattr(here, "commands") or name in NOT_RUN:
                continue
            source = (ROOT / "tests" / ELSEWHERE[name]).read_text("utf-8") if name in ELSEWHERE else ""
            missing = {option for option in options - done.get(name, set()) if f'"{option}"' not in source}
            if missing or (name not in done and not all(f'"{word}"' in source for word in name.split())):
                left.append(f"{page.name}: {command}")
    assert left == []
    assert all((ROOT / "tests" / file).is_file() for file in ELSEWHERE.values())
    assert all((ROOT / path).exists() for why in NOT_RUN.values() for path in re.findall(r"tests/[\w/.]+\w", why))
