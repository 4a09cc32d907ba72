import pytest

from fedpriv.domain.known_keys import keys_of_words, known_keys
from fedpriv.errors import ConfigError, UntrustedError
from fedpriv.protection import fingerprint_words
from fedpriv.study import CodeRequest
from fedpriv.study.plan import MemberChoice
from tests.domain.conftest import ADA


def test_a_domain_knows_itself_its_researchers_and_the_members_of_its_studies(domain, ada, code_request):
    assert [key.email for key in known_keys(domain)] == ["micu@x.org", ADA]
    domain.requests.receive(code_request, ADA)
    own, researcher, other = known_keys(domain)
    study = f"study {code_request.study[:12]} (pending)"
    assert (own.fingerprint, own.where) == (domain.keys.fingerprint, ("this domain", study))
    assert (researcher.fingerprint, researcher.where) == (
        ada.fingerprint,
        ("researcher, pinned in domain.yaml", study),
    )
    assert (other.email, other.fingerprint, other.where) == ("sicu@x.org", "22" * 32, (study,))
    assert not any(key.contradicted for key in (own, researcher, other))


def test_two_keys_for_one_address_are_pointed_at(domain, code_request):
    false = code_request.plan.model_copy(update={"researcher": MemberChoice(email=ADA, fingerprint="66" * 32)})
    domain.requests.receive(CodeRequest.new(false, code_request.files["train.py"]), ADA)
    assert [key.contradicted for key in known_keys(domain)] == [False, True, True, False]


def test_read_out_words_name_their_owner(domain, ada):
    (found,) = keys_of_words(known_keys(domain), fingerprint_words(ada.fingerprint))
    assert found.email == ADA


def test_words_of_nobody_and_words_that_are_wrong_are_told_apart(domain):
    known = known_keys(domain)
    with pytest.raises(UntrustedError, match=r"of none that this domain knows.*Next: call the other back"):
        keys_of_words(known, fingerprint_words("77" * 32))
    with pytest.raises(ConfigError):
        keys_of_words(known, "zoo " * 12)
