from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import ConfigError, ProtectionError, SignatureError, UntrustedError
from fedpriv.files import canonical_json
from fedpriv.protection import (
    IdentityKeys,
    fingerprint,
    fingerprint_words,
    open_sealed,
    open_signed,
    pairwise_secret,
    seal_to,
    sign,
    sign_update,
    verify_update,
)
from fedpriv.protection.envelope import SEALED_OVERHEAD_BYTES
from fedpriv.protection.keys import start_of_words
from fedpriv.study import Identity, Signed, Ticket, UpdateHeader

STUDY = "5" * 64
ANNA = IdentityKeys.create("anna@example.org", "anna", "1" * 64)
BEN = IdentityKeys.create("ben@example.org", "ben", "2" * 64)
TICKET = Ticket(study=STUDY, kind="train", round=1, member="anna@example.org", weight=0.1)


def test_saved_keys_load_and_are_private(tmp_path):
    path = tmp_path / "keys.json"
    ANNA.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    loaded = IdentityKeys.load(path)
    assert loaded.identity == ANNA.identity
    assert open_sealed(loaded, seal_to(ANNA.identity, b"x", context=b"c"), context=b"c") == b"x"


def test_keys_do_not_show_their_secrets():
    assert "PrivateKey" not in repr(ANNA)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_keys_that_others_can_read_are_refused(tmp_path, mode):
    path = tmp_path / "keys.json"
    ANNA.save(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="read by others"):
        IdentityKeys.load(path)


def test_damaged_or_missing_keys_are_refused(tmp_path):
    path = tmp_path / "keys.json"
    with pytest.raises(ConfigError):
        IdentityKeys.load(path)
    ANNA.save(path)
    body = json.loads(path.read_text())
    for damaged in ({**body, "email": "eve@example.org"}, {}, [], {"digest": 3}):
        path.write_text(json.dumps(damaged))
        with pytest.raises(ConfigError):
            IdentityKeys.load(path)
    path.write_bytes(b"\xff not json")
    with pytest.raises(ConfigError):
        IdentityKeys.load(path)


def test_keys_need_a_usable_address():
    with pytest.raises(ConfigError):
        IdentityKeys.create("Not An Address", "x", "1" * 64)


def test_fingerprint_covers_every_field():
    identity = ANNA.identity
    changed = [
        identity.model_copy(update={"email": "anne@example.org"}),
        identity.model_copy(update={"name": "anne"}),
        identity.model_copy(update={"signing_key": BEN.identity.signing_key}),
        identity.model_copy(update={"agreement_key": BEN.identity.agreement_key}),
        identity.model_copy(update={"transport_key": "3" * 64}),
    ]
    assert len({fingerprint(one) for one in [identity, *changed]}) == 6


# The first test vectors of BIP-39 itself: entropy and words.
VECTORS = {
    "00" * 16: "abandon " * 11 + "about",
    "7f" * 16: "legal winner thank year wave sausage worth useful legal winner thank yellow",
    "80" * 16: "letter advice cage absurd amount doctor acoustic avoid letter advice cage above",
    "ff" * 16: "zoo " * 11 + "wrong",
    "9e885d952ad362caeb4efe34a8e91bd2": "ozone drill grab fiber curtain grace pudding thank cruise elder eight picnic",
}


@pytest.mark.parametrize(("start", "words"), VECTORS.items(), ids=[words.split()[0] for words in VECTORS.values()])
def test_a_fingerprint_reads_as_the_words_of_its_first_half(start, words):
    assert fingerprint_words(start + "5" * 32) == words
    assert start_of_words(words) == start


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_words_lead_back_to_the_fingerprint(digest):
    assert start_of_words(fingerprint_words(digest.hex())) == digest.hex()[:32]


def test_words_may_be_typed_as_they_are_heard():
    heard = "  Legal WINN, thank year\nwave saus worth usef legal winner thank yell "
    assert start_of_words(heard) == "7f" * 16


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "12 words, not 0"),
        ("zoo " * 13, "12 words, not 13"),
        ("zoo " * 12, "not twelve that belong together"),
        ("winner legal thank year wave sausage worth useful legal winner thank yellow", "belong together"),
        ("lehgal winner thank", "Word 1, 'lehgal', is not one of .* is it 'legal'"),
        ("legal " + "x" * 500, "Word 2"),
        ("7f7f 7f7f", "Word 1, '7f7f'"),
    ],
)
def test_misheard_words_have_a_sentence_of_their_own(words, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        start_of_words(words)
    assert caught.value.exit_code == 2
    assert "Next: " in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_signed_message_opens():
    signed = Signed.model_validate_json(sign(ANNA, "ticket", TICKET).model_dump_json())
    assert open_signed(signed, kind="ticket", identity=ANNA.identity, model=Ticket) == TICKET


def test_the_signature_is_ed25519_over_label_and_canonical_json():
    signed = sign(ANNA, "ticket", TICKET)
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(ANNA.identity.signing_key))
    data = b"fedpriv 1 ticket\n" + canonical_json(TICKET.model_dump(mode="json"))
    public.verify(base64.urlsafe_b64decode(signed.signature), data)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "result"},
        {"payload": {**TICKET.model_dump(mode="json"), "round": 2}},
        {"payload": {"a": float("nan")}},
        {"payload": {"a": "\ud800"}},
        {"signer": fingerprint(BEN.identity)},
        {"signature": sign(BEN, "ticket", TICKET).signature},
        {"signature": "A" * 86 + "=="},
        {"signature": sign(ANNA, "result", TICKET).signature},
    ],
)
def test_a_changed_message_is_refused(change):
    signed = sign(ANNA, "ticket", TICKET).model_copy(update=change)
    with pytest.raises(SignatureError):
        open_signed(signed, kind="ticket", identity=ANNA.identity, model=Ticket)


def test_a_signature_by_another_is_refused():
    with pytest.raises(SignatureError):
        open_signed(sign(BEN, "ticket", TICKET), kind="ticket", identity=ANNA.identity, model=Ticket)


def test_a_signed_payload_of_a_wrong_form_is_refused():
    with pytest.raises(UntrustedError, match="missing"):
        open_signed(sign(ANNA, "ticket", ANNA.identity), kind="ticket", identity=ANNA.identity, model=Ticket)


def header(**changes) -> UpdateHeader:
    values = {
        "study": STUDY,
        "round": 1,
        "attempt": 1,
        "member": "anna@example.org",
        "cohort": "a" * 64,
        "level": "plain",
        "bits": 10,
        "weight": 0.1,
        "nonce": "9" * 32,
        "key_id": "e" * 64,
        "layout": "b" * 64,
        "scales": "f" * 64,
        "parameters": 9,
    }
    return UpdateHeader(**(values | changes))


def test_updates_are_bound_to_header_digest_and_size():
    signed = sign_update(ANNA, header(), "c" * 64, 100)
    verify_update(signed, ANNA.identity)
    for change in (
        {"header": header(round=2)},
        {"header": header(weight=0.2)},
        {"header": header(nonce="8" * 32)},
        {"header": header(cohort="0" * 64)},
        {"header": header(scales="0" * 64)},
        {"container_sha256": "d" * 64},
        {"container_bytes": 101},
    ):
        with pytest.raises(SignatureError):
            verify_update(signed.model_copy(update=change), ANNA.identity)
    with pytest.raises(SignatureError):
        verify_update(signed, BEN.identity)
    with pytest.raises(ProtectionError):
        sign_update(BEN, header(), "c" * 64, 100)


@settings(max_examples=25, deadline=None)
@given(data=st.binary(max_size=300), context=st.binary(max_size=60))
def test_sealed_data_opens_for_its_recipient_only(data, context):
    sealed = seal_to(ANNA.identity, data, context=context)
    assert len(sealed) == len(data) + SEALED_OVERHEAD_BYTES
    assert open_sealed(ANNA, sealed, context=context) == data
    with pytest.raises(UntrustedError):
        open_sealed(BEN, sealed, context=context)
    with pytest.raises(UntrustedError):
        open_sealed(ANNA, sealed, context=context + b"x")


def test_every_changed_byte_of_sealed_data_is_noticed():
    sealed = seal_to(ANNA.identity, b"secret", context=b"c")
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(UntrustedError):
            open_sealed(ANNA, bytes(changed), context=b"c")
    for length in (0, 3, 4, 35, SEALED_OVERHEAD_BYTES - 1, len(sealed) - 1):
        with pytest.raises(UntrustedError):
            open_sealed(ANNA, sealed[:length], context=b"c")
    assert seal_to(ANNA.identity, b"secret", context=b"c") != sealed


def test_pairwise_secrets_agree_and_are_bound_to_the_study():
    secret = pairwise_secret(ANNA, BEN.identity, STUDY)
    assert secret == pairwise_secret(BEN, ANNA.identity, STUDY)
    assert len(secret) == 32
    assert secret != pairwise_secret(ANNA, BEN.identity, "6" * 64)
    renamed = BEN.identity.model_copy(update={"transport_key": "3" * 64})
    assert secret != pairwise_secret(ANNA, renamed, STUDY)


LOW_ORDER = [bytes(32), b"\x01" + bytes(31), bytes.fromhex("ec" + "ff" * 30 + "7f")]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_points_are_refused(point):
    weak = Identity(
        **{**BEN.identity.model_dump(), "agreement_key": base64.urlsafe_b64encode(point).decode()},
    )
    with pytest.raises(UntrustedError):
        pairwise_secret(ANNA, weak, STUDY)
    with pytest.raises(UntrustedError):
        seal_to(weak, b"x", context=b"")
    with pytest.raises(UntrustedError):
        open_sealed(ANNA, b"fps1" + point + bytes(40), context=b"")


def test_no_secret_with_oneself():
    with pytest.raises(ProtectionError):
        pairwise_secret(ANNA, ANNA.identity, STUDY)
