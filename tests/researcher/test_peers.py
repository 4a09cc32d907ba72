import pytest

from fedpriv.errors import ConfigError
from fedpriv.researcher.peers import PeersFile
from fedpriv.study.plan import MemberChoice

MICU = MemberChoice(email="micu@x.org", fingerprint="1" * 64)
SICU = MemberChoice(email="sicu@x.org", fingerprint="2" * 64)


def test_domains_are_kept_in_their_order_and_a_new_fingerprint_takes_the_place_of_the_old(tmp_path):
    book = PeersFile(tmp_path)
    assert book.read() == ()
    assert book.add([SICU]) == (SICU,)
    assert book.add([MICU]) == (SICU, MICU)
    new = MemberChoice(email="sicu@x.org", fingerprint="3" * 64)
    assert book.add([new]) == (new, MICU)
    assert PeersFile(tmp_path).read() == (new, MICU)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("domains: 5\n", "domains"),
        ("domains: [{email: micu@x.org}]\n", "fingerprint"),
        ("domains: [\n", "peers.yaml"),
        ("fedpriv: 2\n", "fedpriv"),
    ],
)
def test_a_file_that_is_not_valid_is_said_and_left_as_it_is(tmp_path, text, words):
    (tmp_path / "peers.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        PeersFile(tmp_path).add([MICU])
    assert (tmp_path / "peers.yaml").read_text() == text
