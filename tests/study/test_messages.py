import base64
import json
import os
import re
import zlib
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from study_plans import digests, emails

from fedpriv.files import canonical_json, parse_json
from fedpriv.study import messages
from fedpriv.study.messages import (
    MAX_BLOB_BYTES,
    MAX_TICKET_BYTES,
    AggregateManifest,
    BlobRef,
    Consent,
    Identity,
    Limits,
    LinkSample,
    Progress,
    RequestDecision,
    Result,
    Signed,
    SignedUpdate,
    Ticket,
    TicketKind,
    Unlock,
    Unlocked,
    UpdateHeader,
)
from fedpriv.study.protection_choice import ProtectionLevel
from fedpriv.study.section import Section

KEY = "A" * 43 + "="
SIGNATURE = "A" * 86 + "=="
DIGEST = "a" * 64

IDENTITY = {
    "email": "heart@north.example",
    "name": "heart",
    "signing_key": KEY,
    "agreement_key": KEY,
    "transport_key": DIGEST,
}
BLOB = {"name": "update-1.bin", "size_bytes": 10, "sha256": DIGEST}
HEADER = {
    "study": DIGEST,
    "round": 1,
    "attempt": 1,
    "member": "heart@north.example",
    "cohort": DIGEST,
    "level": "sealed",
    "bits": 10,
    "weight": 0.5,
    "nonce": "0" * 32,
    "key_id": DIGEST,
    "layout": DIGEST,
    "scales": DIGEST,
    "parameters": 100,
}
UPDATE = {"header": HEADER, "container_sha256": DIGEST, "container_bytes": 9, "signature": SIGNATURE}
UNLOCK = {"share": KEY, "shares": {"heart@south.example": KEY}, "dropped": {}}
UNLOCKED = {"self_masks": {"heart@north.example": KEY}, "dropped": {"heart@east.example": {"heart@north.example": KEY}}}
MANIFEST = {"study": DIGEST, "round": 1, "attempt": 1, "updates": [UPDATE], "aggregate_sha256": DIGEST}
TICKET = {"study": DIGEST, "kind": "train", "round": 1, "member": "heart@north.example"}
RESULT = {**TICKET, "ticket_sha256": DIGEST, "status": "done"}
CONSENT = {"study": DIGEST, "round": 3, "member": "heart@north.example", "adapter_sha256": DIGEST} | {
    "rounds_joined": 3,
    "ledger_sha256": DIGEST,
}
LIMITS = {"rounds": 3, "metrics": ["examples"], "minimum_cohort": 3}
DECISION = {"study": DIGEST, "member": "heart@north.example", "decision": "approved", "limits": LIMITS}
PROGRESS = {"study": DIGEST, "round": 0, "state": "training"}
SIGNED = {"kind": "ticket", "payload": TICKET, "signer": DIGEST, "signature": SIGNATURE}

LINK = {"up_bytes": 760_000, "up_s": 3.2, "down_bytes": 0, "down_s": 0.0, "small_put_s": 0.3}

EXAMPLES = [
    (Identity, IDENTITY),
    (BlobRef, BLOB),
    (UpdateHeader, HEADER),
    (SignedUpdate, UPDATE),
    (Unlock, UNLOCK),
    (Unlocked, UNLOCKED),
    (AggregateManifest, MANIFEST),
    (Ticket, TICKET),
    (LinkSample, LINK),
    (Result, RESULT),
    (Limits, LIMITS),
    (Consent, CONSENT),
    (RequestDecision, DECISION),
    (Progress, PROGRESS),
    (Signed, SIGNED),
]


def read(model, value):
    return model.model_validate_json(canonical_json(value))


def test_every_message_has_an_example_here():
    models = {
        item
        for item in vars(messages).values()
        if isinstance(item, type) and issubclass(item, Section) and item.__module__ == messages.__name__
    }
    assert {model for model, _ in EXAMPLES} == models


@pytest.mark.parametrize(("model", "example"), EXAMPLES)
def test_a_message_survives_its_canonical_json(model, example):
    message = read(model, example)
    data = canonical_json(message.model_dump(mode="json"))
    again = model.model_validate_json(data)
    assert again == message
    assert canonical_json(again.model_dump(mode="json")) == data


@pytest.mark.parametrize(("model", "example"), EXAMPLES)
def test_unknown_and_missing_keys_are_refused(model, example):
    with pytest.raises(ValidationError, match="Extra inputs"):
        read(model, {**example, "surprise": 1})
    for name, field in model.model_fields.items():
        if field.is_required():
            with pytest.raises(ValidationError, match="Field required"):
                read(model, {key: value for key, value in example.items() if key != name})


@pytest.mark.parametrize(("model", "example"), EXAMPLES)
def test_a_value_of_another_kind_is_refused(model, example):
    for name, value in example.items():
        if isinstance(value, str):
            wrong = 7
        elif isinstance(value, (int, float)):
            wrong = str(value)
        else:
            wrong = "text"
        with pytest.raises(ValidationError):
            read(model, {**example, name: wrong})


@pytest.mark.parametrize(("model", "example"), EXAMPLES)
def test_a_message_cannot_be_changed(model, example):
    message = read(model, example)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(message, next(iter(example)), None)


@pytest.mark.parametrize(
    "name", ["", "../a", "a/b", "a\\b", ".a", "A", "a b", "a\n", "a\x00", "ä", "a" * 121, "/etc/passwd", "c:a"]
)
def test_a_blob_name_is_no_path(name):
    with pytest.raises(ValidationError):
        read(BlobRef, {**BLOB, "name": name})


@given(st.text(max_size=30))
def test_a_blob_name_that_is_taken_stays_in_its_folder(name):
    try:
        taken = BlobRef(name=name, size_bytes=1, sha256=DIGEST).name
    except ValidationError:
        return
    assert re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", taken)
    assert taken not in {".", ".."}


@pytest.mark.parametrize("size", [0, -1, MAX_BLOB_BYTES + 1, 2**63])
def test_blob_sizes_are_bounded(size):
    with pytest.raises(ValidationError):
        read(BlobRef, {**BLOB, "size_bytes": size})


@pytest.mark.parametrize("digest", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n"])
def test_a_digest_is_64_lower_case_hex_digits(digest):
    for model, example, field in ((BlobRef, BLOB, "sha256"), (Ticket, TICKET, "study"), (Signed, SIGNED, "signer")):
        with pytest.raises(ValidationError):
            read(model, {**example, field: digest})


@pytest.mark.parametrize("key", ["", "A" * 44, "A" * 42 + "==", "A" * 42 + "+=", "A" * 43 + "=\n", KEY * 2])
def test_a_key_has_one_length_and_alphabet(key):
    with pytest.raises(ValidationError):
        read(Identity, {**IDENTITY, "signing_key": key})


@pytest.mark.parametrize("nonce", ["", "0" * 31, "0" * 33, "A" * 32, "g" * 32, "0" * 31 + "\n", 0, None])
def test_nonces_have_one_spelling(nonce):
    with pytest.raises(ValidationError):
        read(UpdateHeader, {**HEADER, "nonce": nonce})


@pytest.mark.parametrize("weight", [0, -0.5, 1.0001, 1e308])
def test_weights_are_in_their_range(weight):
    with pytest.raises(ValidationError):
        read(UpdateHeader, {**HEADER, "weight": weight})
    with pytest.raises(ValidationError):
        read(Ticket, {**TICKET, "weight": weight})


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_metric_that_is_no_number_is_refused(number):
    data = canonical_json({**RESULT, "metrics": {"train_loss": 1.5}}).replace(b"1.5", number.encode())
    with pytest.raises(ValidationError):
        Result.model_validate_json(data)


def test_only_the_metrics_of_the_list_can_be_in_a_result():
    assert read(Result, {**RESULT, "metrics": {"train_loss": 1.5, "examples": 3}}).metrics["examples"] == 3
    with pytest.raises(ValidationError):
        read(Result, {**RESULT, "metrics": {"first_note": 1.5}})


def test_a_manifest_has_at_least_one_and_at_most_256_updates():
    for count in (0, 257):
        with pytest.raises(ValidationError):
            read(AggregateManifest, {**MANIFEST, "updates": [UPDATE] * count})


@settings(max_examples=60)
@given(digests, st.integers(0, 1000), st.sampled_from(get_args(TicketKind)), st.integers(1, 1000), emails)
def test_a_ticket_has_one_name_which_is_a_plain_folder_name(study, number, kind, attempt, email):
    ticket = Ticket(study=study, round=number, kind=kind, attempt=attempt, member=email)
    assert ticket.name == f"ticket-{study[:16]}-r{number:04d}-{kind}-{attempt}-0"
    again = ticket.model_copy(update={"retry": 1})
    assert again.name != ticket.name
    assert again.work == ticket.work
    assert re.fullmatch(r"[a-z0-9-]+", ticket.name)
    assert parse_json(canonical_json(ticket.model_dump(mode="json")), source="it")["member"] == email


@pytest.mark.parametrize("level", get_args(ProtectionLevel))
def test_a_header_names_its_level(level):
    assert read(UpdateHeader, {**HEADER, "level": level}).level == level


def key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


@pytest.mark.parametrize(
    ("name", "host", "dropped", "most"), [(64, 128, 127, MAX_TICKET_BYTES), (7, 20, 0, 400_000)], ids=["most", "usual"]
)
def test_the_largest_tickets_of_256_domains_fit(name, host, dropped, most):
    """They are written as indented JSON, and travel compressed in one message of the transport."""
    from fedpriv.transport.messages import MAX_MESSAGE_BYTES

    members = [f"{number:0{name}d}@{'x' * host}" for number in range(256)]
    survivors, gone = members[dropped:], members[:dropped]
    updates = [
        {**UPDATE, "header": {**HEADER, "member": email, "weight": 0.1234567890123456, "nonce": os.urandom(16).hex()}}
        | {"container_sha256": os.urandom(32).hex(), "container_bytes": 8 * 2**30}
        for email in survivors
    ]
    unlocked = {
        "self_masks": {email: key() for email in survivors},
        "dropped": {email: {other: key() for other in survivors} for email in gone},
    }
    aggregate = {**MANIFEST, "updates": updates, "unlocked": unlocked}
    ticket = read(Ticket, {**TICKET, "member": members[-1], "members": members, "aggregate": aggregate})
    signed = {**SIGNED, "payload": ticket.model_dump(mode="json")}
    written = json.dumps(signed, indent=1, sort_keys=True).encode()
    assert len(written) < most
    assert len(zlib.compress(json.dumps(written.decode()).encode())) < MAX_MESSAGE_BYTES / 1.5


def test_a_header_always_names_its_key():
    with pytest.raises(ValidationError):
        read(UpdateHeader, {**HEADER, "key_id": ""})


def test_an_unlock_names_members_by_address_and_holds_keys_only():
    for field in ("shares", "dropped"):
        for wrong in ({"not an address": KEY}, {"heart@south.example": "short"}):
            with pytest.raises(ValidationError):
                read(Unlock, {**UNLOCK, field: wrong})
        with pytest.raises(ValidationError):
            read(Unlock, {**UNLOCK, field: {f"d{n}@x.example": KEY for n in range(257)}})


def test_a_result_may_name_the_key_it_retired():
    assert read(Result, RESULT).retired_key == ""
    assert read(Result, {**RESULT, "retired_key": DIGEST}).retired_key == DIGEST
    with pytest.raises(ValidationError):
        read(Result, {**RESULT, "retired_key": "yes"})
