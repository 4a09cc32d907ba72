from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fedpriv.aggregation import aggregate_round
from fedpriv.errors import ContainerError, SignatureError, UntrustedError
from fedpriv.protection import make_study_key, opener_for, verify_manifest
from fedpriv.study import AggregateManifest
from tests.protection.helpers import STUDY, identity_keys, make_cohort

P = 300


@pytest.fixture(scope="module", params=["plain", "ckks", "sealed"])
def cohort(request, tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def updates(cohort):
    return [cohort.seal(email, np.full(P, 0.01, np.float32))[1] for email in cohort.keys]


def aggregate(cohort, updates, **changes):
    values = {
        "study": STUDY,
        "round": 1,
        "attempt": 1,
        "expected_members": list(cohort.keys),
        "weights": cohort.weights,
        "path": cohort.folder / "sum",
        "identities": cohort.identities,
        "public": cohort.key.public,
    } | changes
    return aggregate_round(values.pop("public"), cohort.protection.level, updates, values.pop("identities"), **values)


def test_a_round(cohort, updates):
    manifest = aggregate(cohort, updates)
    assert aggregate(cohort, updates[::-1]) == manifest
    manifest = AggregateManifest.model_validate_json(manifest.model_dump_json())
    verify_manifest(
        manifest,
        cohort.identities,
        study=STUDY,
        round=1,
        attempt=1,
        expected_members=list(cohort.keys),
        weights=cohort.weights,
    )
    opened = opener_for(cohort.protection, cohort.key, 3).open(cohort.folder / "sum", manifest=manifest)
    np.testing.assert_allclose(opened, 0.01, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"study": "6" * 64},
        {"round": 2},
        {"attempt": 2},
        {"weights": {}},
        {"weights": {f"domain{number}@example.org": 0.5 for number in range(3)}},
        {"expected_members": ["domain0@example.org", "domain1@example.org"]},
        {"expected_members": [f"domain{number}@example.org" for number in range(4)]},
    ],
)
def test_another_round_or_members_or_weights_are_refused(cohort, updates, changes):
    with pytest.raises(UntrustedError):
        aggregate(cohort, updates, path=cohort.folder / "none", **changes)
    assert not (cohort.folder / "none").exists()


def test_each_member_exactly_once(cohort, updates):
    for wrong in ([], updates[:2], [*updates, updates[0]], [updates[0], *updates[:2]]):
        with pytest.raises(UntrustedError):
            aggregate(cohort, wrong)


def test_signatures_are_checked_against_pinned_identities(cohort, updates):
    email = "domain1@example.org"
    with pytest.raises(SignatureError, match="no pinned"):
        aggregate(cohort, updates, identities={k: v for k, v in cohort.identities.items() if k != email})
    with pytest.raises(SignatureError):
        aggregate(cohort, updates, identities=cohort.identities | {email: identity_keys(email).identity})
    (first, path), *rest = updates
    with pytest.raises(SignatureError):
        aggregate(cohort, [(first.model_copy(update={"signature": rest[0][0].signature}), path), *rest])


def test_updates_that_differ_are_refused(cohort, updates):
    email = "domain0@example.org"
    for change in ({"layout": "c" * 64}, {"round": 2}, {"attempt": 3}):
        other = cohort.seal(email, np.zeros(P, np.float32), **change)[1]
        with pytest.raises(UntrustedError, match="differ in"):
            aggregate(cohort, [other, *updates[1:]])
    other = cohort.seal(email, np.zeros(P + 1, np.float32))[1]
    with pytest.raises(UntrustedError, match="differ in parameters"):
        aggregate(cohort, [other, *updates[1:]])


def test_a_changed_container_is_refused(cohort, updates):
    path = updates[0][1]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ContainerError):
        aggregate(cohort, updates)
    path.write_bytes(data[:-1])
    with pytest.raises(ContainerError):
        aggregate(cohort, updates)


def test_updates_for_another_key_are_refused(cohort, updates):
    if cohort.protection.level == "plain":
        return
    other = make_study_key(cohort.protection, clients=3, study=STUDY)
    with pytest.raises(UntrustedError, match="another key"):
        aggregate(cohort, updates, public=other.public)


def test_a_manifest_is_checked_before_opening(cohort, updates):
    manifest = aggregate(cohort, updates)
    known = {"study": STUDY, "round": 1, "attempt": 1, "expected_members": list(cohort.keys)}
    same = manifest.updates[0].container_sha256
    doubled = manifest.updates[1].model_copy(update={"container_sha256": same})
    for wrong, expected in (
        (manifest, known | {"round": 2}),
        (manifest, known | {"expected_members": list(cohort.keys)[:2]}),
        (manifest.model_copy(update={"attempt": 2}), known),
        (manifest.model_copy(update={"updates": manifest.updates[:2]}), known),
        (manifest.model_copy(update={"updates": (manifest.updates[0], doubled, manifest.updates[2])}), known),
    ):
        with pytest.raises(UntrustedError):
            verify_manifest(wrong, cohort.identities, **expected)


def test_adding_needs_no_training_or_transport_code():
    code = "import sys, fedpriv.aggregation; print(*{'torch', 'syft', 'transformers', 'peft'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
