from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from fedpriv.errors import ProtectionError, UntrustedError
from fedpriv.protection import StudyKey, adder_for, make_study_key, sealer_for
from fedpriv.protection.study_key import commitment, public_bytes, public_material, read_parameters
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice
from tests.protection.helpers import STUDY, make_cohort

TENSORS = {"a": 10, "b": 20, "c": 30}
HYBRID = ProtectionChoice(
    level="sealed",
    rules=(LevelRule(tensors=("b",), level="masked", bits=6), LevelRule(tensors=("c",), level="plain")),
)


@pytest.fixture(scope="module")
def key():
    return make_study_key(HYBRID, tensors=TENSORS, clients=3, study=STUDY)


def test_a_key_comes_back_from_its_bytes(key):
    again = StudyKey.from_bytes(key.to_bytes())
    assert (again.public, dict(again.secrets), again.key_id) == (key.public, dict(key.secrets), key.key_id)
    assert (again.generation, again.parameters) == (1, key.parameters)


def test_a_key_says_what_it_is_for(key):
    parameters = key.parameters
    assert (parameters.study, parameters.clients, parameters.security) == (STUDY, 3, "tc192")
    assert [(group.level, group.bits, group.parameters) for group in parameters.groups] == [
        ("sealed", 10, 10),
        ("masked", 6, 20),
        ("plain", 0, 30),
    ]
    assert set(key.secrets) == {"tag", "group-0"}
    assert len(key.secrets["tag"]) == 32


def test_its_public_bytes_hold_no_secret_and_its_name_none_either(key):
    for secret in key.secrets.values():
        assert secret not in key.public
        assert base64.b64encode(secret)[:40] not in key.public
        assert repr(secret)[2:40] not in repr(key)


def test_every_key_is_another(key):
    other = make_study_key(HYBRID, tensors=TENSORS, clients=3, study=STUDY, generation=2)
    assert other.key_id != key.key_id
    assert not set(other.secrets.values()) & set(key.secrets.values())
    assert other.generation == 2


def body(key) -> dict:
    return json.loads(key.to_bytes())


@pytest.mark.parametrize("name", ["tag", "group-0"])
def test_one_changed_bit_of_a_secret_is_found(key, name):
    changed = body(key)
    secret = bytearray(key.secrets[name])
    secret[7] ^= 1
    changed["secrets"][name] = base64.b64encode(secret).decode()
    with pytest.raises(UntrustedError, match="do not fit"):
        StudyKey.from_bytes(json.dumps(changed).encode())


def test_halves_of_different_keys_are_found(key):
    other = make_study_key(HYBRID, tensors=TENSORS, clients=3, study=STUDY)
    with pytest.raises(UntrustedError, match="do not fit"):
        StudyKey.from_bytes(StudyKey(public=key.public, secrets=other.secrets).to_bytes())


@pytest.mark.parametrize(
    "change",
    [
        lambda b: [],
        lambda b: "x",
        lambda b: {},
        lambda b: b | {"more": 1},
        lambda b: b | {"public": 7},
        lambda b: b | {"public": "*"},
        lambda b: b | {"public": ""},
        lambda b: b | {"secrets": []},
        lambda b: b | {"secrets": {"tag": 7}},
        lambda b: b | {"secrets": {"tag": "*"}},
        lambda b: b | {"secrets": {}},
    ],
)
def test_malformed_keys_are_refused(key, change):
    with pytest.raises(UntrustedError):
        StudyKey.from_bytes(json.dumps(change(body(key))).encode())
    for data in (b"", b"{", key.to_bytes()[:-5], b"\xff", b"[" * 10_000):
        with pytest.raises(UntrustedError):
            StudyKey.from_bytes(data)


@pytest.mark.parametrize("secrets", [{}, {"tag": b"short"}, {"group-0": b"x" * 32}])
def test_a_key_maker_that_leaves_out_the_tags_secret_is_found(key, secrets):
    """Its commitment is right: it was made for what is there."""
    parameters = key.parameters.model_copy(update={"commitment": commitment(secrets)})
    with pytest.raises(UntrustedError, match="malformed"):
        StudyKey.from_bytes(StudyKey(public=public_bytes(parameters), secrets=secrets).to_bytes())


@pytest.mark.parametrize("secret", [None, b"", b"x" * 31, b"x" * 100])
def test_a_key_maker_that_leaves_out_the_encryptions_secret_is_found(key, secret):
    secrets = {"tag": bytes(32)} | ({} if secret is None else {"group-0": secret})
    parameters = key.parameters.model_copy(update={"commitment": commitment(secrets)})
    with pytest.raises(UntrustedError, match="malformed"):
        StudyKey.from_bytes(StudyKey(public=public_bytes(parameters), secrets=secrets).to_bytes())


def test_a_key_without_the_encryptions_secret_seals_nothing(tmp_path):
    cohort = make_cohort(tmp_path)
    cohort.key = StudyKey(public=cohort.key.public, secrets={"tag": bytes(32)})
    with pytest.raises(UntrustedError, match="not 32 bytes"):
        cohort.seal(cohort.members[0], np.zeros(cohort.size, np.float32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fedpriv_key": 3}, "another version"),
        ({"clients": 1}, "malformed"),
        ({"clients": 257}, "malformed"),
        ({"security": "none"}, "malformed"),
        ({"groups": []}, "malformed"),
        ({"study": "x"}, "malformed"),
        ({"more": 1}, "malformed"),
    ],
)
def test_parameters_of_another_form_are_refused(key, change, words):
    line = json.loads(key.public.split(b"\n")[0]) | change
    with pytest.raises(UntrustedError, match=words):
        read_parameters(json.dumps(line).encode() + b"\n")


@pytest.mark.parametrize("field", ["digits", "plain_bits", "dropped_bits", "prime", "bits"])
def test_parameters_that_would_break_the_bound_are_refused_by_every_role(field, tmp_path):
    cohort = make_cohort(tmp_path)
    line = json.loads(cohort.key.public.split(b"\n")[0])
    value = line["groups"][0][field]
    line["groups"][0][field] = value + 1 if isinstance(value, int) else "288230376151130113"
    public = json.dumps(line).encode() + b"\n"
    with pytest.raises(ProtectionError):
        adder_for(public)
    with pytest.raises(ProtectionError):
        sealer_for(
            cohort.protection,
            StudyKey(public=public, secrets=cohort.key.secrets),
            cohort.tensors,
            masks=cohort.masks(cohort.members[0]),
        )


@pytest.mark.parametrize(
    ("protection", "tensors"),
    [
        (HYBRID.model_copy(update={"bits": 8}), TENSORS),
        (HYBRID.model_copy(update={"security": "tc256"}), TENSORS),
        (HYBRID.model_copy(update={"level": "masked"}), TENSORS),
        (HYBRID, {**TENSORS, "a": 11}),
    ],
)
def test_a_key_for_another_plan_is_refused(tmp_path, key, protection, tensors):
    masks = make_cohort(tmp_path).masks("d00@example.org")
    with pytest.raises(ProtectionError, match="another protection"):
        sealer_for(protection, key, tensors, masks=masks)


def test_public_material_is_what_follows_the_parameters(key):
    assert public_material(key.public) == b""
    assert public_material(public_bytes(key.parameters, b"a\nb")) == b"a\nb"
