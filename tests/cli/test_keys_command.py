"""`fedpriv domain keys` and what `fedpriv domain show` says about a hybrid plan, as a data owner sees them."""

import json

import pytest
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.domain import DataChoice, Domain, DomainConfig
from fedpriv.errors import ConfigError, UntrustedError
from fedpriv.protection import fingerprint_words
from fedpriv.study import CodeRequest, Plan
from fedpriv.study.plan import BaseModelChoice, MemberChoice
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice
from fedpriv.training import ensure_model
from fedpriv.training.recipe import stock_recipe

ADA = MemberChoice(email="ada@y.org", fingerprint="1" * 64)
OTHER = MemberChoice(email="sicu@x.org", fingerprint="2" * 64)


@pytest.fixture
def domain(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDPRIV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    config = DomainConfig(
        name="micu",
        email="micu@x.org",
        store=str(tmp_path / "store"),
        data=DataChoice(source=str(tmp_path)),
        researchers=(ADA,),
    )
    domain = Domain.create(tmp_path / "micu", config)
    me = MemberChoice(email="micu@x.org", fingerprint=domain.keys.fingerprint)
    rules = (LevelRule(tensors=("*.lora_A.*",), level="masked", bits=6),)
    plan = Plan(
        researcher=ADA,
        cohort=(me, OTHER),
        base_model=BaseModelChoice(name="tiny"),
        protection=ProtectionChoice(rules=rules),
    )
    domain.requests.receive(CodeRequest.new(plan, stock_recipe()), ADA.email)
    return domain


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def printed(*arguments):
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_the_table_has_everybodys_words_and_digits(domain):
    shown = printed("domain", "keys", domain.folder.root)
    for value in (domain.keys.fingerprint, ADA.fingerprint, OTHER.fingerprint):
        for word in fingerprint_words(value).split():
            assert word in shown
        assert value[:4] in shown
    assert "this domain" in shown
    assert "researcher, pinned in" in shown
    assert "Two different keys" not in shown


def test_two_keys_for_one_address_are_warned_about(domain):
    pins = (MemberChoice(email=OTHER.email, fingerprint="9" * 64),)
    domain.folder.write_config(domain.config.model_copy(update={"researchers": pins}))
    assert "Two different keys are named for one address" in printed("domain", "keys", domain.folder.root)


def test_the_json_has_words_and_places(domain):
    keys = json.loads(run("domain", "keys", domain.folder.root, "--json").output)
    assert [key["email"] for key in keys] == ["micu@x.org", "ada@y.org", "sicu@x.org"]
    assert all(key["words"] == fingerprint_words(key["fingerprint"]) for key in keys)


@pytest.mark.parametrize("quoted", [True, False])
def test_words_are_checked_quoted_or_not(domain, quoted):
    words = fingerprint_words(ADA.fingerprint)
    given = [words] if quoted else words.split()
    shown = printed("domain", "keys", domain.folder.root, "--check", *given)
    assert "These are the words of ada@y.org (researcher, pinned" in shown


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--check", fingerprint_words("7" * 64)], UntrustedError),
        (["--check", "zoo " * 12], ConfigError),
        (["--check", "zooo"], ConfigError),
        (["--check"], ConfigError),
        (["zoo"], ConfigError),
    ],
)
def test_other_words_end_with_an_error(domain, arguments, error):
    done = run("domain", "keys", domain.folder.root, *arguments)
    assert isinstance(done.exception, error)
    assert "Next: " in str(done.exception)


def test_a_hybrid_plan_is_shown_in_words_and_its_rule_is_out_of_bounds(domain):
    study = domain.requests.studies()[0]
    shown = printed("domain", "show", domain.folder.root, study)
    assert "except tensors matching *.lora_A.*, which are masked at 6 bits: the researcher sees their sum" in shown
    assert "NO rule 1 of the plan's protection (masked for tensors matching *.lora_A.*) keeps to one of" in shown
    ensure_model("tiny")
    shown = printed("domain", "show", domain.folder.root, study)
    assert "except 4 tensors matching *.lora_A.*, which are masked" in shown
    assert "sealed (some masked)" in printed("domain", "requests", domain.folder.root)


def test_renewing_keeps_the_words_and_is_in_the_ledger(domain):
    before = CliRunner().invoke(app, ["domain", "keys", str(domain.folder.root), "--json"]).stdout
    done = CliRunner().invoke(app, ["domain", "keys", str(domain.folder.root), "--renew"])
    assert done.exit_code == 0, done.output
    assert "Nobody has to compare words again" in done.stdout
    assert CliRunner().invoke(app, ["domain", "keys", str(domain.folder.root), "--json"]).stdout == before
    entry = Domain.open(domain.folder.root).ledger.verified()[-1]
    assert entry.kind == "key.renewed"
    again = CliRunner().invoke(app, ["domain", "keys", str(domain.folder.root), "--renew", "--json"])
    assert json.loads(again.stdout)["generation"] > entry.facts["generation"]
