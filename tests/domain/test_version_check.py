"""A domain asks what the others speak, once each, and again where it must."""

import pytest

from fedpriv.domain.versions import VersionCheck
from fedpriv.errors import SignatureError, UnknownVersionError, VersionError
from fedpriv.protection import IdentityKeys, container
from fedpriv.protection.versions import signed_versions
from fedpriv.study.versions import VERSIONS_FILE
from fedpriv.transport import Store


@pytest.fixture
def check(domain):
    return VersionCheck(keys=domain.keys, store_url=domain.config.store)


def say(domain, keys):
    """Have a party say what it speaks."""
    Store.from_url(domain.config.store).put(f"{keys.email}/{VERSIONS_FILE}", signed_versions(keys))


def test_who_says_the_same_is_understood_and_not_asked_again(check, ada, domain):
    say(domain, ada)
    check.require([ada.identity], kept="Nothing was run")
    Store.from_url(domain.config.store).delete(f"{ada.email}/{VERSIONS_FILE}")
    check.require([ada.identity], kept="Nothing was run")
    with pytest.raises(UnknownVersionError):
        check.require([ada.identity], kept="Nothing was run", again=True)
    with pytest.raises(UnknownVersionError):  # it is not understood any more
        check.require([ada.identity], kept="Nothing was run")


def test_who_is_apart_is_refused_until_it_says_otherwise(check, ada, domain, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(container, "VERSION", "9")
        say(domain, ada)
    with pytest.raises(VersionError, match="container 9, not 4") as caught:
        check.require([ada.identity], kept="Nothing was run")
    assert not isinstance(caught.value, UnknownVersionError)
    assert caught.value.kept == "Nothing was run"
    say(domain, ada)
    check.require([ada.identity], kept="Nothing was run")


def test_a_statement_of_somebody_else_in_its_place_is_refused(check, domain, ada):
    stranger = IdentityKeys.create(ada.email, "ada", "11" * 32)
    say(domain, stranger)
    with pytest.raises(UnknownVersionError, match=r"ada@y\.org puts it back while it runs") as caught:
        check.require([ada.identity], kept="Nothing was run")
    assert isinstance(caught.value.__cause__, SignatureError)


def test_a_domain_does_not_ask_itself(check, domain):
    check.require([domain.keys.identity], kept="Nothing was run")
