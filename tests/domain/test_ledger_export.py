import csv
import io
import re
from pathlib import Path

import fedpriv
from fedpriv.domain.ledger_export import _WORDS, to_csv, to_html, words_of


def test_every_kind_that_fedpriv_records_has_words():
    kinds = set()
    for path in Path(fedpriv.__file__).parent.rglob("*.py"):
        kinds |= set(re.findall(r'ledger\.append\(\s*"([a-z_.]+)"', path.read_text(encoding="utf-8")))
    assert len(kinds) > 10
    assert kinds <= set(_WORDS)


def test_a_table_has_every_entry_and_no_formula(domain):
    domain.ledger.append("message.refused", peer="=cmd()", reason='a, "b"\nc')
    domain.ledger.append("=1+1")
    entries = domain.ledger.entries()
    rows = list(csv.reader(io.StringIO(to_csv(entries))))
    assert rows[0] == ["number", "time_utc", "kind", "meaning", "facts", "digest"]
    assert [row[0] for row in rows[1:]] == ["1", "2", "3"]
    assert rows[1][3] == "The domain was created"
    assert rows[3][2] == "'=1+1"
    assert all(not cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)
    assert rows[2][5] == entries[1].digest


def test_a_page_shows_what_peers_sent_as_text(domain):
    domain.ledger.append(
        "message.refused", peer="<img src=x onerror=alert(1)>", reason="{0} $x", some_list=["a", 1, None]
    )
    page = to_html(domain.ledger.entries(), domain="<b>micu</b>", verified_s=0.0)
    assert "<img" not in page
    assert "<b>" not in page
    assert "&lt;img src=x" in page
    assert "Whole: 2 entries" in page
    assert "1970-01-01 00:00:00 UTC" in page
    assert domain.ledger.entries()[-1].digest in page
    assert words_of("message.refused") in page
    assert "<dt>some list</dt><dd>a; 1; null</dd>" in page


def run(*arguments):
    from typer.testing import CliRunner

    from fedpriv.cli.main import app

    return CliRunner().invoke(app, ["domain", "ledger", *map(str, arguments)])


def test_the_commands_verify_and_export(domain, tmp_path):
    root = domain.folder.root
    domain.ledger.append("round.started", study="5" * 64, round=1)
    newest = domain.ledger.entries()[-1].digest
    shown = run("verify", root)
    assert shown.exit_code == 0
    assert newest in shown.output.replace("\n", "")
    assert run("verify", root, "--holds", newest).exit_code == 0
    assert len(run("show", root).output.splitlines()) == 2
    for name, start in (("l.html", "<!doctype html>"), ("l.csv", "number,time_utc")):
        assert run("export", root, "--out", tmp_path / name).exit_code == 0
        assert (tmp_path / name).read_text().startswith(start)
        assert (tmp_path / name).stat().st_mode & 0o077 == 0


def test_an_empty_ledger_is_not_called_whole(domain):
    domain.folder.ledger_path.unlink()
    shown = run("verify", domain.folder.root)
    assert shown.exception is None
    assert "The ledger is empty" in shown.output
    assert "whole" not in shown.output


def test_a_changed_ledger_is_not_exported(domain, tmp_path):
    path, root = domain.folder.ledger_path, domain.folder.root
    assert "neither a page nor a table" in str(run("export", root, "--out", tmp_path / "l.pdf").exception)
    path.write_bytes(path.read_bytes().replace(b"domain.created", b"domain.creaked"))
    assert "Entry 1 of the ledger" in str(run("export", root, "--out", tmp_path / "l.csv").exception)
    assert not list(tmp_path.glob("l.*"))
