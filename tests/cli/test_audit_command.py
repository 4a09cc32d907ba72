"""`fedpriv audit leakage`, as a data owner types it."""

import json
import stat

from typer.testing import CliRunner

from fedpriv.audit import LeakageAudit
from fedpriv.cli.main import app
from fedpriv.errors import ConfigError
from tests.audit.conftest import asked  # noqa: F401 - a fixture


def run(asked, study, *options):  # noqa: F811
    command = ["audit", "leakage", study, "--domain", str(asked.domain.folder.root), *map(str, options)]
    return CliRunner().invoke(app, command, env={"FEDPRIV_CACHE": str(asked.cache), "COLUMNS": "110"})


def test_a_page_is_written_into_the_domain_s_folder_and_the_numbers_are_shown(asked):  # noqa: F811
    study = asked.request().study
    done = run(asked, study[:8], "--passages", 6, "--rounds", 0)
    assert done.exit_code == 0, done.output
    shown = " ".join(done.stdout.split())
    assert "Which word pieces stood in the note?" in shown
    assert "The researcher, and the store" in shown
    numbers, page = sorted((asked.domain.folder.state / "audits").iterdir(), key=lambda path: path.suffix == ".html")
    assert [path.name for path in (numbers, page)] == [f"leakage-{study[:12]}.{kind}" for kind in ("json", "html")]
    for path in (numbers, page):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert study[:12] in page.read_text()


def test_json_is_the_audit_and_the_page_goes_where_it_is_wanted(asked, tmp_path):  # noqa: F811
    out = tmp_path / "mine.html"
    done = run(asked, asked.request().study, "--passages", 5, "--rounds", 0, "--json", "--out", out)
    found = LeakageAudit.model_validate_json(done.stdout)
    assert found.passages == 5
    assert json.loads(done.stdout)["audit_version"] == 1
    assert out.exists()


def test_an_unknown_request_is_said(asked):  # noqa: F811
    assert isinstance(run(asked, "ffff").exception, ConfigError)
