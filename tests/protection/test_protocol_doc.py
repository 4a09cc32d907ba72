"""The worked example in docs/protocol.md: its numbers are recomputed, by fedpriv and by plain arithmetic beside it."""

import base64
import hashlib
import hmac
import json
import re
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedpriv.protection import (
    IdentityKeys,
    MaskSource,
    StudyKey,
    adder_for,
    combine_unlocks,
    fingerprint_words,
    first_scales,
    opener_for,
    pairwise_secret,
    scales_digest,
    sealer_for,
    sign_update,
    updates_digest,
)
from fedpriv.protection.bfv import BfvKeys
from fedpriv.protection.bitplanes import pack_words
from fedpriv.protection.groups import groups_of
from fedpriv.protection.levels import describe, packing_of
from fedpriv.protection.packing import PRIMES, plan_packing
from fedpriv.protection.streams import ternary_polynomial, uniform_polynomials
from fedpriv.protection.study_key import KeyParameters, commitment, public_bytes
from fedpriv.study.messages import AggregateManifest, UpdateHeader
from fedpriv.study.protection_choice import ProtectionChoice

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
STUDY = "5" * 64
TENSORS = {"a": 3, "b": 2}
LEVELS = {"ann@example.org": [7, -7, 0, 1, -3], "bob@example.org": [1, 2, -4, 5, 6]}
PROTECTION = ProtectionChoice(level="masked", bits=4)
NONCES = {"ann@example.org": "a" * 32, "bob@example.org": "b" * 32}
TAG_SECRET = bytes(range(32))
BFV_SECRET = bytes(range(32, 64))


def identity(email, start):
    return IdentityKeys(
        email=email,
        name=email.split("@")[0],
        transport_key="0" * 64,
        _signing=Ed25519PrivateKey.from_private_bytes(bytes(range(start, start + 32))),
        _agreement=X25519PrivateKey.from_private_bytes(bytes(range(start + 32, start + 64))),
    )


def study_key():
    parts = {"tag": TAG_SECRET}
    groups = tuple(describe(group, clients=2, security="tc192") for group in groups_of(PROTECTION, TENSORS))
    parameters = KeyParameters(
        study=STUDY, generation=1, clients=2, security="tc192", groups=groups, commitment=commitment(parts)
    )
    return StudyKey(public=public_bytes(parameters), secrets=parts)


def example(folder):
    """Run the example with fedpriv and return the numbers that the document shows."""
    keys = {"ann@example.org": identity("ann@example.org", 0), "bob@example.org": identity("bob@example.org", 64)}
    ann, bob = keys.values()
    key, scales = study_key(), first_scales(7 / 1024, TENSORS)
    masks = {
        email: MaskSource.of_cohort(own, [k.identity for k in keys.values()], study=STUDY)
        for email, own in keys.items()
    }
    updates = []
    for email, own in keys.items():
        header = UpdateHeader(
            study=STUDY,
            round=1,
            attempt=1,
            member=email,
            cohort=masks[email].cohort,
            level="masked",
            bits=4,
            weight=1.0,
            nonce=NONCES[email],
            key_id=key.key_id,
            layout="1" * 64,
            scales=scales_digest(scales),
            parameters=5,
        )
        path = folder / email
        update = np.array(LEVELS[email], np.float32) / 1024
        sealed = sealer_for(PROTECTION, key, TENSORS, masks=masks[email]).seal(header, update, path, scales=scales)
        updates.append((sign_update(own, header, sealed.sha256, sealed.size_bytes), path))
    signed = tuple(update for update, _ in updates)
    streams = masks[ann.email].streams(signed[0].header)
    unlocks = {email: masks[email].unlock(signed) for email in keys}
    digest, size = adder_for(key.public).add(updates, folder / "sum")
    unlocked = combine_unlocks(signed, unlocks)
    manifest = AggregateManifest(
        study=STUDY, round=1, attempt=1, updates=signed, aggregate_sha256=digest, unlocked=unlocked
    )
    opened = opener_for(PROTECTION, key, TENSORS).open(folder / "sum", manifest=manifest, scales=scales)
    packing = packing_of(key.parameters, 0)
    words = packing.pack(np.array([level + 7 for level in LEVELS[ann.email]], np.uint32))[0]
    bfv = BfvKeys.of(BFV_SECRET, [update.header for update in signed], 0)
    prime = PRIMES["tc192"]
    planes = np.zeros((1, 4096), np.uint64)
    planes[0, 0], planes[0, 1] = 0x7123456789ABC, 0x5
    packed = pack_words(planes, 51)[0]
    return {
        "ann": {
            "identity": ann.identity.model_dump(mode="json"),
            "fingerprint": ann.fingerprint,
            "words": fingerprint_words(ann.fingerprint),
            "own_secret": ann.own_secret(b"self masks", STUDY).hex(),
            "pair_secret": pairwise_secret(ann, bob.identity, STUDY).hex(),
            "self_mask": streams.added[0].hex(),
            "pair_mask": streams.added[1].hex(),
            "header": signed[0].header.model_dump(mode="json"),
            "value_words": [int(word) for word in words[:3]],
            "container_bytes": signed[0].container_bytes,
            "container_sha256": signed[0].container_sha256,
            "signature": signed[0].signature,
            "unlock_share": unlocks[ann.email].share,
        },
        "bob": {
            "fingerprint": bob.fingerprint,
            "container_sha256": signed[1].container_sha256,
            "lock_part_for_ann": unlocks[bob.email].shares[ann.email],
        },
        "key": {
            "public": key.public.decode().rstrip("\n"),
            "key_id": key.key_id,
        },
        "scales": {"values": [scale.hex() for scale in scales], "digest": scales_digest(scales)},
        "packing": {
            "radix": packing.radix,
            "digits": packing.digits,
            "plain_bits": packing.plain_bits,
            "limb_bits": packing.limb_bits,
            "limbs": packing.limbs,
            "value_words": packing.value_words,
            "width": packing.width,
        },
        "planes": {
            "0..7": packed[:8].tobytes().hex(),
            "16384..16387": packed[16384:16388].tobytes().hex(),
            "24576": packed[24576:24577].tobytes().hex(),
            "25088": packed[25088:25089].tobytes().hex(),
            "25600": packed[25600:25601].tobytes().hex(),
            "bytes": len(packed),
        },
        "bfv": {
            "common": bfv.common.hex(),
            "a": [hex(word) for word in uniform_polynomials(bfv.common, 1, 1, prime)[0, :3].tolist()],
            "secrets": [secret.hex() for secret in bfv.secrets],
            "s": [ternary_polynomial(secret)[:8].tolist() for secret in bfv.secrets],
        },
        "updates_digest": updates_digest(signed),
        "sum": {
            "self_masks": dict(unlocked.self_masks),
            "bytes": size,
            "sha256": digest,
            "levels": [round(float(value) * 1024) for value in opened.sum],
        },
    }


def documented():
    text = DOCUMENT.read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- worked example -->\n+```json\n(.*?)```", text, re.DOTALL)
    return json.loads(block)


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def hkdf(secret, info):
    """32 bytes of HKDF-SHA256 without salt, written out (RFC 5869)."""
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\1", hashlib.sha256).digest()


def aes_block(key, counter):
    return Cipher(algorithms.AES(key), modes.CTR(counter.to_bytes(16, "big"))).encryptor().update(bytes(16))


def stream_word(key, index):
    data = aes_block(key, index // 2)[8 * (index % 2) :][:8]
    return int.from_bytes(data, "little")


def test_the_documented_example_is_what_fedpriv_computes(tmp_path):
    assert documented() == example(tmp_path)


def test_the_documented_sum_is_the_sum_of_the_levels():
    assert documented()["sum"]["levels"] == [sum(pair) for pair in zip(*LEVELS.values(), strict=True)]


def test_the_documented_container_can_be_built_from_the_document_alone():
    """A second implementation of level masked in thirty lines: every byte of ann's container."""
    shown = documented()
    ann, packing = shown["ann"], shown["packing"]
    facts = {name: value for name, value in ann["header"].items() if name not in ("member", "weight", "nonce")}
    pair = sorted(LEVELS)
    self_mask = hkdf(bytes.fromhex(ann["own_secret"]), b"fedpriv 3 self mask\n" + canonical([facts, "a" * 32]))
    pair_mask = hkdf(bytes.fromhex(ann["pair_secret"]), b"fedpriv 2 pair mask\n" + canonical([facts, pair]))
    assert (self_mask.hex(), pair_mask.hex()) == (ann["self_mask"], ann["pair_mask"])

    digits = [level + 7 for level in LEVELS["ann@example.org"]]
    words = [0] * packing["value_words"]
    for position, digit in enumerate(digits):
        words[position // packing["digits"]] += digit * packing["radix"] ** (position % packing["digits"])
    words.append(1)
    prime = 2**61 - 1
    factors = hkdf(TAG_SECRET, b"fedpriv 2 tag factors\n" + canonical([facts, 0]))
    pad = hkdf(TAG_SECRET, b"fedpriv 3 tag pad\n" + canonical([facts, 0, "ann@example.org", "a" * 32]))
    tag = sum((stream_word(factors, i) % 2**61) * word for i, word in enumerate(words))
    tag = (tag + int.from_bytes(aes_block(pad, 0), "little")) % prime
    for place in range(packing["limbs"]):
        words.append((tag >> (packing["limb_bits"] * place)) % 2 ** packing["limb_bits"])
    bits = packing["plain_bits"]
    masked = [(word + stream_word(self_mask, i) + stream_word(pair_mask, i)) % 2**bits for i, word in enumerate(words)]
    row, shift = b"", 0
    for width in (32, 16, 8):
        if bits - shift >= width:
            row += b"".join((word >> shift & (2**width - 1)).to_bytes(width // 8, "little") for word in masked)
            shift += width
    for bit in range(shift, bits):
        plane = "".join(str(word >> bit & 1) for word in masked)
        row += int(plane, 2).to_bytes(512, "big")

    header = canonical({"kind": "update", **ann["header"]}).decode()
    head = {
        "__metadata__": {"format": "fedpriv-container", "version": "4", "header": header},
        "group-0": {"dtype": "U8", "shape": [1, len(row)], "data_offsets": [0, len(row)]},
    }
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    container = len(text).to_bytes(8, "little") + text + row
    assert len(container) == ann["container_bytes"]
    assert hashlib.sha256(container).hexdigest() == ann["container_sha256"]


def test_the_documented_polynomials_can_be_computed_from_the_document_alone():
    shown, headers = documented(), [documented()["ann"]["header"]]
    facts = {name: value for name, value in headers[0].items() if name not in ("member", "weight", "nonce")}
    common = hashlib.sha256(b"fedpriv 3 common polynomial\n" + canonical([facts, 0])).digest()
    secrets = [
        hkdf(BFV_SECRET, b"fedpriv 3 one-time secret\n" + canonical([facts, 0, member, NONCES[member]]))
        for member in sorted(LEVELS)
    ]
    assert [common.hex(), [secret.hex() for secret in secrets]] == [shown["bfv"]["common"], shown["bfv"]["secrets"]]
    words = [stream_word(common, 4096 + place) % 2**60 for place in range(3)]
    assert [hex(word) for word in words] == shown["bfv"]["a"]
    assert max(words) < PRIMES["tc192"]
    for secret, polynomial in zip(secrets, shown["bfv"]["s"], strict=True):
        pairs = [stream_word(secret, place // 32) >> 2 * (place % 32) & 3 for place in range(40)]
        assert [pair - 1 for pair in pairs if pair < 3][:8] == polynomial


def test_the_documented_signature_and_unlock_are_right():
    shown = documented()
    ann = shown["ann"]
    body = {
        "header": ann["header"],
        "container_sha256": ann["container_sha256"],
        "container_bytes": ann["container_bytes"],
    }
    signature = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).sign(b"fedpriv 1 update\n" + canonical(body))
    assert base64.urlsafe_b64encode(signature).decode() == ann["signature"]
    facts = {name: value for name, value in ann["header"].items() if name not in ("member", "weight", "nonce")}
    info = canonical([facts, shown["updates_digest"], "ann@example.org", "bob@example.org"])
    lock = hkdf(bytes.fromhex(ann["pair_secret"]), b"fedpriv 2 lock\n" + info)
    assert base64.urlsafe_b64encode(lock).decode() == shown["bob"]["lock_part_for_ann"]
    share = bytes(a ^ b for a, b in zip(lock, bytes.fromhex(ann["self_mask"]), strict=True))
    assert base64.urlsafe_b64encode(share).decode() == ann["unlock_share"]


def test_the_documented_table_of_packings_is_what_is_planned():
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (sealed|masked) \| (\d+) \| (\d+) \|" + r" (\d+) \|" * 7 + "$", text, re.MULTILINE)
    assert len(rows) >= 10
    for level, *numbers in rows:
        clients, bits, *shown = map(int, numbers)
        packing = plan_packing(bits=bits, clients=clients, security="tc192" if level == "sealed" else None)
        assert shown == [
            packing.radix,
            packing.digits,
            packing.plain_bits,
            packing.dropped_bits,
            packing.limbs,
            packing.width,
            512 * packing.sent_bits,
        ]
