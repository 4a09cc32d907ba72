"""`fedpriv study sensitivity`, as a researcher types it."""

import json

import pytest
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.errors import ConfigError, ExistsError
from fedpriv.files import write_json
from fedpriv.researcher import Researcher, Study

DOMAINS = ["--domain", f"a@x.org={'2' * 64}", "--domain", f"b@x.org={'3' * 64}"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDPRIV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    home = tmp_path / "home"
    assert run("study", "init", "--email", "ada@y.org", "--store", tmp_path / "store", home=home).exit_code == 0
    return home


def run(*arguments, home):
    return CliRunner().invoke(app, [*map(str, arguments), "--home", str(home)])


def new(home, *options):
    return run("study", "new", "icu", *DOMAINS, "--model", "tiny", "--steps", 2, *options, home=home)


def test_the_map_is_shown_kept_and_written_into_the_draft(home):
    assert new(home, "--bits", 6).exit_code == 0
    done = run("study", "sensitivity", "icu", "--by", "spread", "--notes", 4, "--write", home=home)
    assert done.exit_code == 0, done.output
    shown = " ".join(done.output.split())
    assert "4 single notes, after 2 steps on made-up notes" in shown
    assert "layers.0.self_attn.v_proj.lora_B" in shown
    assert "Each data owner must allow masked in domain.yaml" in shown
    study = Study.open(Researcher.open(home), "icu")
    kept = json.loads((study.folder.root / "sensitivity.json").read_text())
    (rule,) = study.plan.protection.rules
    assert rule.level == "masked"
    assert set(rule.tensors) == {row["tensor"] for row in kept["tensors"] if row["level"] == "masked"}
    assert study.plan.protection.bits == 6
    write_json(study.folder.state / "submitted.json", {"study": study.folder.draft().study})
    again = run("study", "sensitivity", "icu", "--by", "spread", "--write", home=home)
    assert isinstance(again.exception, ExistsError)


def test_json_is_one_object_and_bad_options_are_refused_before_measuring(home):
    assert new(home).exit_code == 0
    done = run(
        "study",
        "sensitivity",
        "icu",
        "--by",
        "spread",
        "--notes",
        3,
        "--seal",
        0.5,
        "--level",
        "plain",
        "--json",
        home=home,
    )
    assert json.loads(done.stdout)["level"] == "plain"
    for options in (("--seal", 0), ("--level", "sealed"), ("--level", "no"), ("--by", "luck")):
        assert isinstance(run("study", "sensitivity", "icu", *options, home=home).exception, ConfigError)
    assert isinstance(run("study", "sensitivity", "none", home=home).exception, ConfigError)


def test_a_map_by_attack_shows_what_was_named_from_each_tensor(home):
    assert new(home).exit_code == 0
    done = run("study", "sensitivity", "icu", "--notes", 8, home=home)
    assert done.exit_code == 0, done.output
    shown = " ".join(done.output.split())
    assert "named" in shown
    assert "of what the attack names" in shown
    study = Study.open(Researcher.open(home), "icu")
    assert json.loads((study.folder.root / "sensitivity.json").read_text())["by"] == "attack"
