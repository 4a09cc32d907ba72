from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fedpriv.aggregation import aggregate_round, verify_round
from fedpriv.errors import ContainerError, SignatureError, UntrustedError
from fedpriv.protection import (
    IdentityKeys,
    MaskSource,
    StudyKey,
    combine_unlocks,
    first_scales,
    make_study_key,
    needs_unlock,
    opener_for,
    scales_digest,
    sealer_for,
    sign_update,
    verify_manifest,
)
from fedpriv.study import AggregateManifest, UpdateHeader
from fedpriv.study.protection_choice import ProtectionChoice

STUDY = "5" * 64
TENSORS = {"a": 100, "b": 200}
P = 300
SCALES = first_scales(0.05, TENSORS)


@dataclass
class Cohort:
    """Three domains that seal the same update with different weights."""

    protection: ProtectionChoice
    keys: dict[str, IdentityKeys]
    key: StudyKey
    folder: Path

    @property
    def identities(self):
        return {email: keys.identity for email, keys in self.keys.items()}

    @property
    def weights(self):
        return dict(zip(self.keys, (1.0, 0.5, 0.25), strict=True))

    def masks(self, email):
        return MaskSource.of_cohort(self.keys[email], self.identities.values(), study=STUDY)

    def header(self, email, **changes):
        masks = self.masks(email)
        values = {
            "study": STUDY,
            "round": 1,
            "attempt": 1,
            "member": email,
            "cohort": masks.cohort,
            "level": self.protection.level,
            "bits": self.protection.bits,
            "weight": self.weights[email],
            "nonce": f"{len(email):032x}",
            "key_id": self.key.key_id,
            "layout": "b" * 64,
            "scales": scales_digest(SCALES),
            "parameters": P,
        }
        return UpdateHeader(**(values | changes))

    def seal(self, email, value=0.01, **changes):
        path = self.folder / f"{email}.safetensors"
        header = self.header(email, **changes)
        sealer = sealer_for(self.protection, self.key, TENSORS, masks=self.masks(email))
        sealed = sealer.seal(header, np.full(P, value, np.float32), path, scales=SCALES)
        return sign_update(self.keys[email], header, sealed.sha256, sealed.size_bytes), path

    def unlocked(self, updates):
        if not needs_unlock(self.protection):
            return None
        signed = [update for update, _ in updates]
        return combine_unlocks(signed, {email: self.masks(email).unlock(signed) for email in self.keys})


@pytest.fixture(scope="module", params=["plain", "ckks", "masked", "sealed"])
def cohort(request, tmp_path_factory):
    protection = ProtectionChoice(level=request.param)
    emails = [f"domain{number}@example.org" for number in range(3)]
    return Cohort(
        protection,
        {email: IdentityKeys.create(email, "house", "0" * 64) for email in emails},
        make_study_key(protection, tensors=TENSORS, clients=3, study=STUDY),
        tmp_path_factory.mktemp(request.param),
    )


@pytest.fixture
def updates(cohort):
    return [cohort.seal(email) for email in cohort.keys]


def known(cohort, **changes):
    return {
        "study": STUDY,
        "round": 1,
        "attempt": 1,
        "expected_members": list(cohort.keys),
        "weights": cohort.weights,
    } | changes


def aggregate(cohort, updates, **changes):
    public = changes.pop("public", cohort.key.public)
    identities = changes.pop("identities", cohort.identities)
    path = changes.pop("path", cohort.folder / "sum")
    unlocked = changes.pop("unlocked", None)
    return aggregate_round(public, updates, identities, path=path, unlocked=unlocked, **known(cohort, **changes))


def test_a_round(cohort, updates):
    unlocked = cohort.unlocked(updates)
    manifest = aggregate(cohort, updates, unlocked=unlocked)
    assert aggregate(cohort, updates[::-1], unlocked=unlocked) == manifest
    manifest = AggregateManifest.model_validate_json(manifest.model_dump_json())
    verify_manifest(manifest, cohort.identities, **known(cohort))
    opener = opener_for(cohort.protection, cohort.key, TENSORS)
    opened = opener.open(cohort.folder / "sum", manifest=manifest, scales=SCALES)
    np.testing.assert_allclose(opened.sum, 0.01 * sum(cohort.weights.values()), atol=3e-4)


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
    with pytest.raises(UntrustedError):
        verify_round(cohort.key.public, [u for u, _ in updates], cohort.identities, **known(cohort, **changes))


def test_each_member_exactly_once(cohort, updates):
    for wrong in ([], updates[:2], [*updates, updates[0]], [updates[0], *updates[:2]]):
        with pytest.raises(UntrustedError):
            aggregate(cohort, wrong)


def test_signatures_are_checked_against_pinned_identities(cohort, updates):
    email = "domain1@example.org"
    with pytest.raises(SignatureError, match="no pinned"):
        aggregate(cohort, updates, identities={k: v for k, v in cohort.identities.items() if k != email})
    stranger = IdentityKeys.create(email, "house", "0" * 64).identity
    with pytest.raises(SignatureError):
        aggregate(cohort, updates, identities=cohort.identities | {email: stranger})
    (first, path), *rest = updates
    with pytest.raises(SignatureError):
        aggregate(cohort, [(first.model_copy(update={"signature": rest[0][0].signature}), path), *rest])


def test_updates_that_differ_are_refused(cohort, updates):
    email = "domain0@example.org"
    (signed, path), *rest = updates
    for change in (
        {"layout": "c" * 64},
        {"round": 2},
        {"attempt": 3},
        {"cohort": "c" * 64},
        {"scales": "c" * 64},
        {"key_id": "c" * 64},
        {"parameters": P + 1},
    ):
        header = signed.header.model_copy(update=change)
        other = sign_update(cohort.keys[email], header, signed.container_sha256, signed.container_bytes)
        with pytest.raises(UntrustedError, match="differ in"):
            aggregate(cohort, [(other, path), *rest])


def test_a_container_twice_is_refused(cohort, updates):
    (first, _), (second, path), *rest = updates
    same = sign_update(cohort.keys[second.header.member], second.header, first.container_sha256, first.container_bytes)
    with pytest.raises(ContainerError, match="same container"):
        aggregate(cohort, [updates[0], (same, path), *rest])


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
    other = make_study_key(cohort.protection, tensors=TENSORS, clients=3, study=STUDY, generation=2)
    with pytest.raises(UntrustedError, match="another key"):
        aggregate(cohort, updates, public=other.public)


def test_a_manifest_is_checked_before_opening(cohort, updates):
    manifest = aggregate(cohort, updates)
    expected = known(cohort)
    same = manifest.updates[0].container_sha256
    doubled = manifest.updates[1].model_copy(update={"container_sha256": same})
    for wrong, changes in (
        (manifest, {"round": 2}),
        (manifest, {"expected_members": list(cohort.keys)[:2]}),
        (manifest.model_copy(update={"attempt": 2}), {}),
        (manifest.model_copy(update={"updates": manifest.updates[:2]}), {}),
        (manifest.model_copy(update={"updates": (manifest.updates[0], doubled, manifest.updates[2])}), {}),
    ):
        with pytest.raises(UntrustedError):
            verify_manifest(wrong, cohort.identities, **(expected | changes))


def test_adding_needs_no_training_or_transport_code():
    code = "import sys, fedpriv.aggregation; print(*{'torch', 'syft', 'transformers', 'peft'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
