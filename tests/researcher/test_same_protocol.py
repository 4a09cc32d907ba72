"""Whether the domains of a study speak our protocol is asked before anything is sent to them."""

import pytest

from fedpriv.errors import UnknownVersionError
from fedpriv.protection.versions import signed_versions
from fedpriv.researcher.versions import require_same_protocol
from fedpriv.transport import Store

MICU = "micu@x.org"


@pytest.fixture
def ask(researcher, members):
    store = Store.from_url(researcher.config.store)

    def ask(data):
        if data is not None:
            store.put(f"{MICU}/fedpriv.json", data)
        require_same_protocol(researcher, {MICU: members[MICU].identity}, [MICU])

    return ask


def test_who_says_the_same_is_understood(ask, members):
    ask(signed_versions(members[MICU]))


@pytest.mark.parametrize("what", ["nothing", "no JSON", "another one's", "too much"])
def test_who_says_nothing_that_is_its_own_is_waited_for(ask, members, what):
    data = {
        "nothing": None,
        "no JSON": b"{",
        "another one's": signed_versions(members["sicu@x.org"]),
        "too much": bytes(10**6),
    }[what]
    with pytest.raises(UnknownVersionError, match=MICU) as caught:
        ask(data)
    assert caught.value.kept == "Nothing was sent"
    assert "minute" in caught.value.todo
