"""`fedpriv domain init`: everything that it is given is checked before anything is made."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.cli.new_domain import parse_pin
from fedpriv.clinical import write_synthetic
from fedpriv.domain import Domain
from fedpriv.errors import ConfigError, DataError, ExistsError, FedprivError
from fedpriv.files import folder_lock

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables") / "tables"
    write_synthetic(folder, patients=20, seed=0)
    return folder


def init(folder, *options):
    done = CliRunner().invoke(app, ["domain", "init", str(folder), *map(str, options)])
    if isinstance(done.exception, FedprivError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def options(tables, store):
    return ["--email", "a@x.org", "--store", store, "--data", tables]


def test_a_relative_store_is_kept_with_its_whole_path(tmp_path, tables, monkeypatch):
    monkeypatch.chdir(tmp_path)
    init("micu", *options(tables, "share/store"))
    assert Domain.open(tmp_path / "micu").config.store == str(tmp_path / "share" / "store")
    monkeypatch.setenv("HOME", str(tmp_path))
    init("sicu", *options(tables, "~/store"))
    assert Domain.open(tmp_path / "sicu").config.store == str(tmp_path / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["micu", "sicu"]  # no store was made yet


def test_a_domain_that_trusts_nobody_says_so_until_it_does(tmp_path, tables):
    folder, pin = tmp_path / "micu", f"ada@y.org={'ab' * 32}"
    assert "`fedpriv domain trust" in init(folder, *options(tables, tmp_path / "store"))
    assert "no researcher is pinned" in CliRunner().invoke(app, ["domain", "status", str(folder)]).output
    assert CliRunner().invoke(app, ["domain", "trust", str(folder), pin]).exit_code == 0
    assert "pinned" not in CliRunner().invoke(app, ["domain", "status", str(folder)]).output
    assert "domain trust" not in init(tmp_path / "sicu", *options(tables, tmp_path / "store"), "--researcher", pin)


def test_a_relative_store_in_domain_yaml_is_refused(tmp_path, tables):
    init(tmp_path / "micu", *options(tables, tmp_path / "store"))
    path = tmp_path / "micu" / "domain.yaml"
    path.write_text(path.read_text().replace(str(tmp_path / "store"), "store"))
    with pytest.raises(ConfigError, match="write the whole path, which begins with /"):
        Domain.open(tmp_path / "micu")


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("sftp://me:secret@host/x", "holds a password"),
        ("ftp://me:secret@host/x", "the kind ftp is unknown"),
        ("s3:/bucket/x", "write s3:// and what follows"),
        ("file://x", "write it as file:///folder"),
        ("s3://", "bucket"),
    ],
)
@pytest.mark.parametrize("party", ["domain", "researcher"])
def test_a_store_that_could_only_fail_later_makes_no_party(tmp_path, tables, store, words, party):
    arguments = ["domain", "init", str(tmp_path / "d"), "--data", str(tables)]
    if party == "researcher":
        arguments = ["study", "init", "--home", str(tmp_path / "d")]
    done = CliRunner().invoke(app, [*arguments, "--email", "a@x.org", "--store", store])
    assert isinstance(done.exception, ConfigError)
    assert words in str(done.exception)
    assert "secret" not in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_the_address_of_a_database_is_no_path(tmp_path):
    with pytest.raises(DataError, match="holds a password"):  # which only the source of PostgreSQL says
        init(tmp_path / "d", *options("postgresql://me:secret@nowhere.example/mimic", tmp_path / "store"))
    done = CliRunner().invoke(app, ["data", "inspect", "postgresql://me:secret@nowhere.example/mimic"])
    assert "holds a password" in str(done.exception)


def test_what_must_be_given_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"--store, --data missing.*give --store and --data, or put a domain.yaml"):
        init(tmp_path / "d", "--email", "a@x.org")


def test_options_of_the_machine_reach_domain_yaml(tmp_path, tables):
    init(tmp_path / "d", *options(tables, tmp_path / "s"), "--sandbox", "required", "--metrics-port", 9464)
    config = Domain.open(tmp_path / "d").config
    assert (config.resources.sandbox, config.service.metrics_port) == ("required", 9464)
    with pytest.raises(ConfigError, match="say required, preferred, off"):
        init(tmp_path / "e", *options(tables, tmp_path / "s"), "--sandbox", "none")


def copied(tmp_path, tables):
    """A copy of an example, with the store and the tables changed, as its page says."""
    folder = tmp_path / "micu"
    folder.mkdir()
    text = (ROOT / "domains" / "micu" / "domain.yaml").read_text()
    text = text.replace("/data/mimic ", f"{tables} ").replace("/shared/store ", f"{tmp_path / 'store'} ")
    (folder / "domain.yaml").write_text(text)
    return folder, text


def test_a_copied_example_gets_its_keys_and_stays_as_it_is(tmp_path, tables):
    folder, text = copied(tmp_path, tables)
    assert "Fingerprint: " in init(folder)
    assert (folder / "domain.yaml").read_text() == text
    domain = Domain.open(folder)
    assert domain.keys.email == "micu@north.example"
    assert [entry.kind for entry in domain.ledger.verified()] == ["domain.created"]
    with pytest.raises(ExistsError, match="is a domain already"):  # never twice: the keys would be others
        init(folder)
    with pytest.raises(ExistsError, match="is a domain already"):
        init(folder, *options(tables, tmp_path / "s"))
    assert Domain.open(folder).keys.fingerprint == domain.keys.fingerprint


class Killed(BaseException):
    """What nothing catches, as a kill."""


WRITES = {
    "before domain.yaml": "fedpriv.domain.folder.write_atomic",
    "before the transport keys": "fedpriv.domain.domain.create_transport_keys",
    "amid the transport keys": "syft.sync.peers.peer_store.PeerStore.save_keys",
    "before the keys": "fedpriv.protection.keys.write_json",
    "before the ledger": "fedpriv.domain.ledger.os.write",
}


@pytest.mark.parametrize("again", ["with the same options", "without options"])
@pytest.mark.parametrize("when", WRITES)
def test_a_domain_whose_making_was_killed_is_made_when_it_is_asked_for_again(
    tmp_path, tables, monkeypatch, when, again
):
    folder, given = tmp_path / "micu", options(tables, tmp_path / "store")

    def killed(*arguments, **_):
        if when == "amid the transport keys":
            Path(arguments[1]).write_text('{"half')
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(WRITES[when], killed)
        with pytest.raises(Killed):
            CliRunner().invoke(app, ["domain", "init", str(folder), *map(str, given)])
    if when not in ("before domain.yaml", "before the ledger"):
        with pytest.raises(ConfigError, match=r"broken off before it had its keys.*fedpriv domain init .*micu` again"):
            Domain.open(folder)
    seen = Domain.open(folder).keys.fingerprint if when == "before the ledger" else ""
    if when != "before domain.yaml":
        with pytest.raises(ExistsError, match="would not say what the options do"):
            init(folder, *given, "--name", "another")
    init(folder, *(given if again == "with the same options" or when == "before domain.yaml" else ()))
    domain = Domain.open(folder)
    assert domain.keys.fingerprint == (seen or domain.keys.fingerprint)
    assert [entry.kind for entry in domain.ledger.verified()] == ["domain.created"]
    with pytest.raises(ExistsError, match="is a domain already"):
        init(folder)


def test_keys_whose_domain_yaml_is_missing_are_not_replaced(tmp_path, tables):
    folder, given = tmp_path / "micu", options(tables, tmp_path / "store")
    init(folder, *given)
    keys = Domain.open(folder).folder.identity_path.read_bytes()
    (folder / "domain.yaml").rename(folder / "kept")
    with pytest.raises(ExistsError, match=r"holds the keys of a domain.*restore .*domain.yaml from its backup"):
        init(folder, *given)
    (folder / "kept").rename(folder / "domain.yaml")
    assert Domain.open(folder).folder.identity_path.read_bytes() == keys


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rounds: 20", "rounds: many", "max_rounds"),
        ("/tables ", "/none ", "none"),
        ("\nstore: ", "\nstore: sftp://me:secret@h", "holds a password"),
    ],
)
def test_a_copied_example_with_a_mistake_gets_no_keys(tmp_path, tables, old, new, words):
    folder, text = copied(tmp_path, tables)
    (folder / "domain.yaml").write_text(text.replace(old, new))
    with pytest.raises(FedprivError, match=words):
        init(folder)
    assert [path.name for path in folder.iterdir()] == ["domain.yaml"]


def test_options_beside_a_copied_example_are_refused(tmp_path, tables):
    folder, text = copied(tmp_path, tables)
    with pytest.raises(ExistsError, match="without options to make its keys"):
        init(folder, "--name", "heart")
    assert (folder / "domain.yaml").read_text() == text


def test_trust_keeps_the_comments_of_a_copied_example(tmp_path, tables):
    folder, text = copied(tmp_path, tables)
    init(folder)
    done = CliRunner().invoke(app, ["domain", "trust", str(folder), f"ben@y.org={'ab' * 32}"])
    assert done.exit_code == 0, done.output
    after = (folder / "domain.yaml").read_text()
    assert [line for line in text.splitlines() if line not in after.splitlines()] == []
    assert yaml.safe_load(after)["researchers"][-1]["email"] == "ben@y.org"


def test_a_service_that_runs_has_to_be_started_again_to_know_another_researcher(tmp_path, tables):
    folder, _ = copied(tmp_path, tables)
    init(folder)
    domain = Domain.open(folder)
    with folder_lock(domain.folder.lock_path, holder="The domain micu", todo="stop it"):  # as the service does
        assert "start it again" not in CliRunner().invoke(app, ["domain", "status", str(folder)]).output
        done = CliRunner().invoke(app, ["domain", "trust", str(folder), f"ben@y.org={'ab' * 32}"])
        assert "Next: start it again." in done.output
        assert "start it again" in CliRunner().invoke(app, ["domain", "status", str(folder)]).output
        assert domain.service()["older_than_config"]
    assert not domain.service()["older_than_config"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("Ben@y.org=" + "ab" * 32, "email: an address in lower case"),
        ("ben@y.org=" + "ab" * 31, "fingerprint: 64 digits"),
        ("ben@y.org", "fingerprint: 64 digits"),
    ],
)
def test_a_pin_that_is_none_says_which_half_is_wrong(given, words):
    with pytest.raises(ConfigError, match=words):
        parse_pin(given)


def test_a_code_of_a_standing_approval_that_is_none_is_named_by_its_setting(tmp_path, tables):
    folder, text = copied(tmp_path, tables)
    (folder / "domain.yaml").write_text(text.replace("standing: []", "standing: [{name: ours, code: stock}]"))
    with pytest.raises(FedprivError, match=r"standing > 1 > code: input should be 'stock-recipe'.*code: 64 digits"):
        init(folder)


@pytest.mark.parametrize("written", ["off", '"off"'])
def test_no_sandbox_can_be_written_with_and_without_quotes(tmp_path, tables, written):
    folder, text = copied(tmp_path, tables)
    init(folder)
    (folder / "domain.yaml").write_text(text.replace("sandbox: required", f"sandbox: {written}"))
    assert Domain.open(folder).config.resources.sandbox == "off"
    (folder / "domain.yaml").write_text(text.replace("sandbox: required", "sandbox: on"))
    with pytest.raises(ConfigError, match="sandbox"):
        Domain.open(folder)
