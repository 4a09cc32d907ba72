"""A domain that was set back notices it by its mark on the store, and nobody can forge one."""

import json
import shutil
from pathlib import Path

import pytest

from fedpriv.domain import Domain
from fedpriv.domain.ledger_mark import MARK_FILE, MarkKeeper
from fedpriv.errors import RefusedError
from fedpriv.protection import IdentityKeys
from fedpriv.transport import Store
from tests.domain.conftest import ADA


@pytest.fixture
def keeper(domain):
    return MarkKeeper(domain=domain)


def set_back(domain, tmp_path):
    """Copy the folder now; return a way to have this state again."""
    shutil.copytree(domain.folder.root, tmp_path / "old", symlinks=True)
    return lambda: Domain.open(tmp_path / "old")


def test_a_domain_that_goes_on_is_not_refused(keeper, domain):
    keeper.check()
    keeper.publish()
    MarkKeeper(domain=domain).check()
    domain.ledger.append("round.trained")
    MarkKeeper(domain=domain).check()


def test_an_older_state_is_refused_and_named(keeper, domain, tmp_path):
    old = set_back(domain, tmp_path)
    domain.ledger.append("epsilon.charged")
    keeper.publish()
    with pytest.raises(RefusedError, match="had 2 entries; here are 1") as caught:
        MarkKeeper(domain=old()).check()
    assert "accept-loss" in caught.value.todo


def test_another_future_of_the_same_length_is_refused(keeper, domain, tmp_path):
    old = set_back(domain, tmp_path)
    domain.ledger.append("round.trained")
    keeper.publish()
    twin = old()
    twin.ledger.append("something.else")
    twin.ledger.append("something.else")
    with pytest.raises(RefusedError):
        MarkKeeper(domain=twin).check()


def test_a_loss_that_is_accepted_revokes_and_is_recorded(keeper, domain, tmp_path, code_request):
    domain.requests.receive(code_request, ADA)
    domain.approve(code_request.study)
    old = set_back(domain, tmp_path)
    domain.ledger.append("round.trained")
    keeper.publish()
    twin = old()
    assert MarkKeeper(domain=twin).accept_loss() == (code_request.study,)
    assert twin.requests.decision(code_request.study).decision == "revoked"
    assert twin.ledger.entries()[-1].kind == "domain.set-back"
    again = MarkKeeper(domain=twin)
    again.check()
    again.publish()
    MarkKeeper(domain=twin).check()
    with pytest.raises(RefusedError):  # the other one is now the older
        MarkKeeper(domain=domain).check()


def test_without_a_loss_there_is_none_to_accept(keeper):
    keeper.publish()
    with pytest.raises(RefusedError, match="no loss"):
        keeper.accept_loss()


def test_a_mark_that_somebody_else_made_counts_for_nothing(domain):
    stranger = IdentityKeys.create(domain.config.email, "micu", "11" * 32)
    Domain(folder=domain.folder, config=domain.config, keys=stranger)
    other = MarkKeeper(domain=Domain(folder=domain.folder, config=domain.config, keys=stranger))
    domain.ledger.append("round.trained")
    other.publish()
    assert MarkKeeper(domain=domain).shown() is None
    MarkKeeper(domain=domain).check()


@pytest.mark.parametrize("change", [lambda v: v["mark"].update(entries=99), lambda v: v.clear(), None])
def test_a_mark_that_was_changed_counts_for_nothing(keeper, domain, change):
    keeper.publish()
    store, key = Store.from_url(domain.config.store), f"{domain.config.email}/{MARK_FILE}"
    value = json.loads(store.get(key, max_bytes=4096))
    if change:
        change(value)
    store.put(key, json.dumps(value).encode() if change else b"\xff")
    assert keeper.shown() is None
    keeper.check()


def test_it_is_put_only_when_there_is_something_new(keeper, domain):
    keeper.publish()
    store, key = Store.from_url(domain.config.store), f"{domain.config.email}/{MARK_FILE}"
    store.delete(key)
    keeper.publish()
    assert not store.exists(key)
    domain.ledger.append("round.trained")
    keeper.publish()
    assert store.exists(key)


@pytest.mark.parametrize("what", ["large", "a folder", "a link", "other JSON"])
def test_what_is_no_mark_does_not_keep_a_domain_from_starting(keeper, domain, what):
    """Whoever can write there could as well take the mark away."""
    keeper.publish()
    (path,) = Path(domain.config.store).rglob(MARK_FILE)
    path.unlink()
    if what == "a folder":
        path.mkdir()
    elif what == "a link":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(bytes(10**6) if what == "large" else b"[" * 4000)
    MarkKeeper(domain=domain).check()
