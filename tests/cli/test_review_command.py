"""`fedpriv domain show` and `try`, as a data owner sees them."""

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.cli.review_view import print_review
from fedpriv.domain import local_training, sandbox
from fedpriv.domain.dry_run import DryRun
from fedpriv.domain.review import Review, review_of
from fedpriv.errors import RefusedError, TrainingError
from fedpriv.study import CodeRequest
from fedpriv.study.plan import TrainingChoice
from fedpriv.training.recipe import stock_recipe
from tests.domain.conftest import ADA, ada, code_request, domain, plan  # noqa: F401 - fixtures

HOSTILE = (
    "import socket\n\n\ndef train(context):\n"
    "    # [bold red on white]approved[/] [link=https://x.example]x[/link] \\[\n"
    "    return '</span><script>'\n"
)


@pytest.fixture
def shown(domain, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setenv("FEDPRIV_CACHE", str(tmp_path / "cache"))

    def show(request, *arguments, width=100):
        monkeypatch.setenv("COLUMNS", str(width))
        domain.requests.receive(request, ADA)
        command = ["domain", "show", str(domain.folder.root), request.study[:10], *arguments]
        done = CliRunner().invoke(app, command)
        assert done.exception is None, done.output
        return done.output

    return show


def order(text, *parts):
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_what_matters_most_comes_first(shown, code_request):  # noqa: F811
    text = shown(code_request)
    order(
        text,
        "LoRA fine-tuning",
        "Within your limits; no grave finding in the code.",
        "What will run",
        "Epsilon",
        "Your limits (domain.yaml)",
        "Static check of the code",
        "Nothing found",
        "The code against the stock recipe",
        "show it with --files",
        "plan.yaml",
        "Your decision",
        "fedpriv domain try ",
        "fedpriv audit leakage ",
        "fedpriv domain approve ",
        "fedpriv domain reject ",
    )
    assert "def train" not in text
    assert "def train" in shown(code_request, "--files")


def test_dangers_and_broken_limits_are_said_at_the_top(shown, plan):  # noqa: F811
    request = CodeRequest.new(plan.model_copy(update={"training": TrainingChoice(rounds=500)}), HOSTILE)
    text = shown(request)
    order(text, "OUTSIDE your limits; 1 grave findings", "What will run", "NO   at most 20 rounds", "danger")
    assert "fedpriv domain approve" not in text
    assert "cannot be approved as it is" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_screen_is_never_exceeded(shown, plan, width):  # noqa: F811
    text = shown(CodeRequest.new(plan, HOSTILE), width=width)
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("fedpriv ", "show", "allow"))]
    assert max(map(len, lines)) <= width


def test_text_of_a_request_is_shown_as_it_is(domain, plan):  # noqa: F811
    request = CodeRequest.new(plan, HOSTILE)
    domain.requests.receive(request, ADA)
    files = dict(request.files) | {"train.py": HOSTILE + "x = '\x1b]0;owned\x07\x1b[2J\u202e'\r# more\n"}
    review = review_of(domain, domain.requests.get(request.study)).model_copy(update={"files": files})
    out = io.StringIO()
    print_review(Console(file=out, width=120, force_terminal=True, color_system=None), review, folder="x")
    text = out.getvalue()
    assert "[bold red on white]approved[/]" in text
    assert "<U+001B>]0;owned<U+0007><U+001B>[2J<U+202E>" in text
    assert "\x1b]0" not in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text
    assert "\r" not in text


def test_the_json_is_the_review(shown, code_request):  # noqa: F811
    review = Review.model_validate_json(shown(code_request, "--json"))
    assert review.study == code_request.study
    assert review.files == code_request.files


def test_changes_since_the_last_approval_are_shown(domain, shown, plan, code_request):  # noqa: F811
    assert "You approved no earlier request" in shown(code_request, "--since")
    domain.approve(code_request.study)
    later = CodeRequest.new(
        plan.model_copy(update={"training": TrainingChoice(rounds=7)}), stock_recipe() + "\nX = 1\n"
    )
    text = shown(later)
    assert f"Since request {code_request.study[:12]}, which you approved" in text
    assert "training > rounds  3 -> 7" in text
    assert "Show these changes with --since." in text
    assert "+X = 1" in shown(later, "--since")


@pytest.mark.skipif(sandbox.bubblewrap() is None, reason="bubblewrap does not work here")
def test_a_request_is_tried_and_the_result_shown(domain, shown, code_request):  # noqa: F811
    shown(code_request)
    command = ["domain", "try", str(domain.folder.root), code_request.study[:10]]
    done = CliRunner().invoke(app, command)
    assert done.exception is None, done.output
    assert "It ran to its end, and what it gave could leave." in done.output
    text = shown(code_request)
    order(text, "Static check", "Dry run on made-up patients", "no network, no view", "The code against")
    assert "fedpriv domain try" not in text
    (json_line,) = [CliRunner().invoke(app, [*command, "--json"]).stdout]
    assert json.loads(json_line)["outcome"] == "passed"


def test_a_worker_that_ends_before_it_tells_its_walls_is_no_worker_without_any(
    domain,  # noqa: F811
    shown,
    code_request,  # noqa: F811
    monkeypatch,
):
    def die(*given, **options):
        raise TrainingError("The training worker died at once")

    shown(code_request)
    monkeypatch.setattr(local_training, "TrainingWorker", die)
    command = ["domain", "try", str(domain.folder.root), code_request.study[:10], "--without-sandbox"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1, done.output
    assert "The training worker died at once" in done.output
    assert "unknown: it ended before it said so" in done.output
    assert "NONE" not in done.output
    done = CliRunner().invoke(app, [*command, "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["outcome"], found["walls"]) == (1, "failed", "unknown")


@pytest.mark.parametrize(("outcome", "code"), [("passed", 0), ("refused", 1), ("failed", 1)])
def test_the_exit_code_says_whether_it_passed(domain, code_request, monkeypatch, outcome, code):  # noqa: F811
    domain.requests.receive(code_request, ADA)
    result = DryRun(
        study=code_request.study, tried_s=1, outcome=outcome, walls="none", steps=2, threads=1, examples=3, seconds=1
    )
    monkeypatch.setattr("fedpriv.domain.dry_run.dry_run", lambda *given, **options: result)
    done = CliRunner().invoke(app, ["domain", "try", str(domain.folder.root), code_request.study[:10]])
    assert done.exit_code == code
    assert "NONE" in done.output


def test_without_a_sandbox_trying_is_refused_with_the_next_step(domain, shown, code_request, monkeypatch):  # noqa: F811
    shown(code_request)
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: None)
    done = CliRunner().invoke(app, ["domain", "try", str(domain.folder.root), code_request.study[:10]])
    assert isinstance(done.exception, RefusedError)
    assert "Next: install bubblewrap" in str(done.exception)


def test_a_damaged_request_is_named_among_the_others(domain, shown, plan, code_request):  # noqa: F811
    shown(code_request)
    other = CodeRequest.new(plan, HOSTILE)
    shown(other)
    (domain.requests.recipe_path(other.study).parent / "more.py").write_text("x = 1\n")
    done = CliRunner().invoke(app, ["domain", "requests", str(domain.folder.root)])
    assert done.exception is None
    assert f"The frozen copy of {other.study[:12]} was changed on disk" in done.stderr
    assert code_request.study[:12] in done.stdout
