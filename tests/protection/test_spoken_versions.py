"""What this software says that it speaks, and that it is changed with what it is about."""

import gzip
import json
import re
from pathlib import Path

import pytest

import fedpriv
from fedpriv.errors import SignatureError, UntrustedError
from fedpriv.files import canonical_json, sha256_hex
from fedpriv.protection import IdentityKeys, container, sign, signed_identity
from fedpriv.protection import versions as module
from fedpriv.protection.versions import messages_digest, parse_versions, signed_versions, spoken_versions
from fedpriv.study import Ticket
from fedpriv.transport import parts, prekeys
from fedpriv.transport.messages import Address, pack_message

ANNA = IdentityKeys.create("anna@example.org", "anna", "11" * 32)
BEN = IdentityKeys.create("ben@example.org", "ben", "22" * 32)


def test_what_is_said_comes_back_and_names_every_version_of_the_protocol():
    spoken = parse_versions(signed_versions(ANNA), ANNA.identity)
    assert spoken == spoken_versions("anna@example.org")
    assert spoken.fedpriv == fedpriv.__version__
    assert spoken.protocol["container"] == container.VERSION
    assert set(spoken.protocol) == {"container", "study key", "box", "derivations", "store layout", "messages"}


def test_the_page_of_the_protocol_names_the_same_versions():
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    for part, version in spoken_versions("anna@example.org").protocol.items():
        row = re.search(rf"^\| {part} \|.*$", page, re.MULTILINE)
        assert row, part
        assert part == "messages" or version in row[0]


def test_labels_of_derivations_change_with_their_version_alone():
    """If this fails, a label was added or changed: raise DERIVATIONS, and put the new digest here."""
    labels = set()
    for path in (Path(fedpriv.__file__).parent / "protection").glob("*.py"):
        labels |= set(re.findall(r'b"(fedpriv \d+ [a-z -]+)(?:\\n)?"', path.read_text()))
    labels -= {"fedpriv 1 messages", "fedpriv 1 key file", "fedpriv 1 vault"}  # no other party reads these
    assert len(labels) > 12
    assert (module.DERIVATIONS, sha256_hex(canonical_json(sorted(labels)))[:8]) == (3, "b91f7b43")


def test_what_lies_on_a_store_changes_with_its_version_alone():
    """If this fails, what the transport writes was changed: raise STORE_LAYOUT, and put the new digest here."""
    message = pack_message(b"{}", Address(sender="a@x.org", recipient="b@x.org", box="inbox", number=1))
    unpacked = gzip.decompress(message)  # a compressor may write other bytes some day
    bundle = prekeys._LABEL + prekeys._signed("a@x.org", 3, {"prekey": "x"})
    index = sorted(parts.PartsIndex.model_fields)
    written = [unpacked.hex(), len(message), bundle.hex(), index, parts.PART_BYTES]
    assert (module.STORE_LAYOUT, sha256_hex(canonical_json(written))[:8]) == (1, "fdfdd205")


def test_another_form_of_a_message_is_another_version(monkeypatch):
    class Longer(Ticket):
        more: int = 0

    class Reworded(Ticket):
        """Only its text is another."""

    Longer.__name__ = Reworded.__name__ = "Ticket"
    before = messages_digest()

    def digest_with(ticket):
        monkeypatch.setattr(module, "_MESSAGES", (ticket, *module._MESSAGES[1:]))
        messages_digest.cache_clear()
        return messages_digest()

    original = module._MESSAGES
    try:
        assert digest_with(Longer) != before
        assert digest_with(Reworded) == before
    finally:
        monkeypatch.setattr(module, "_MESSAGES", original)
        messages_digest.cache_clear()


def test_nobody_says_it_for_another():
    with pytest.raises(SignatureError):
        parse_versions(signed_versions(BEN), ANNA.identity)
    about_anna = sign(BEN, "versions", spoken_versions("anna@example.org"))
    with pytest.raises(UntrustedError, match="another party"):
        parse_versions(about_anna.to_bytes(), BEN.identity)


def test_another_signed_message_is_not_taken_for_it():
    with pytest.raises(SignatureError):
        parse_versions(signed_identity(ANNA), ANNA.identity)


def test_a_changed_version_is_noticed():
    value = json.loads(signed_versions(ANNA))
    value["payload"]["fedpriv"] = "9.9.9"
    with pytest.raises(SignatureError):
        parse_versions(canonical_json(value), ANNA.identity)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b" " * 20_000, signed_versions(ANNA)[:-2]])
def test_what_cannot_be_read_is_refused(data):
    with pytest.raises(UntrustedError):
        parse_versions(data, ANNA.identity)
