"""What holds at every level: seal, add, open; wrong keys, headers, counts and bytes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fedpriv.errors import ContainerError, FedprivError, GatekeeperError, ProtectionError, UntrustedError
from fedpriv.files import file_sha256
from fedpriv.protection import StudyKey, adder_for, make_study_key, opener_for, sealer_for
from fedpriv.protection.container import read_container, write_container
from fedpriv.study.plan import ProtectionChoice
from tests.protection.helpers import STUDY, Cohort, make_cohort

LEVELS = ["plain", "ckks", "sealed"]
TOLERANCE = {"plain": 1e-7, "ckks": 1e-6, "sealed": 3 * 0.05 / 32767}
DTYPES = {
    "plain": {"count": "uint64", "values": "float32"},
    "ckks": {"blocks": "uint8", "sizes": "uint64"},
    "sealed": {"c0": "uint64", "seeds": "uint8"},
}
P = 5000


@pytest.fixture(scope="module", params=LEVELS)
def cohort(request, tmp_path_factory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def sums(cohort):
    """One round: updates by member, signed updates, the aggregate's path and the manifest."""
    rng = np.random.default_rng(7)
    updates = {email: (rng.standard_normal(P) * 0.01).astype(np.float32) for email in cohort.keys}
    sealed = [cohort.seal(email, update)[1] for email, update in updates.items()]
    path = cohort.folder / "aggregate"
    digest, size = adder_for(cohort.protection.level, cohort.key.public).add(sealed, path)
    assert (size, digest) == (path.stat().st_size, file_sha256(path))
    return updates, sealed, path, cohort.manifest(sealed, digest)


def opener(cohort: Cohort, key: StudyKey | None = None):
    return opener_for(cohort.protection, key or cohort.key, len(cohort.keys))


def rewritten(cohort: Cohort, path, change):
    """Return a copy of a container with another header or arrays, and its digest and size."""
    digest = file_sha256(path)
    header, arrays = read_container(path, max_bytes=2**30, expect_sha256=digest, dtypes=DTYPES[cohort.protection.level])
    header, arrays = change(header, arrays)
    copy = cohort.folder / "copy"
    return copy, *write_container(copy, header, arrays)


def test_the_sum_opens(cohort, sums):
    updates, _, path, manifest = sums
    opened = opener(cohort).open(path, manifest=manifest)
    expected = sum(cohort.weights[email] * update.astype(np.float64) for email, update in updates.items())
    assert (opened.dtype, opened.shape) == (np.float64, (P,))
    np.testing.assert_allclose(opened, expected, rtol=0, atol=TOLERANCE[cohort.protection.level])


def test_keys_travel(cohort, sums):
    key = StudyKey.from_bytes(cohort.key.to_bytes())
    assert (key, key.key_id) == (cohort.key, cohort.key.key_id)
    opener(cohort, key).open(sums[2], manifest=sums[3])
    assert not key.secret or repr(key.secret) not in repr(key)


def test_another_key_is_refused(cohort, sums):
    if cohort.protection.level == "plain":
        return
    other = make_study_key(cohort.protection, clients=3, study=STUDY)
    assert other.key_id != cohort.key.key_id
    with pytest.raises(ProtectionError):
        opener(cohort, other).open(sums[2], manifest=sums[3])
    with pytest.raises(UntrustedError):
        adapted = StudyKey(level=other.level, public=cohort.key.public, secret=other.secret)
        opener(cohort, adapted)
    with pytest.raises(ProtectionError):
        opener_for(cohort.protection, cohort.key, 4)
    with pytest.raises(ProtectionError):
        opener_for(cohort.protection.model_copy(update={"clip": 0.1}), cohort.key, 3)
    with pytest.raises(ProtectionError):
        sealer = cohort.sealer(next(iter(cohort.keys)))
        cohort.seal(next(iter(cohort.keys)), np.zeros(9, np.float32), sealer=sealer, study="6" * 64)


def test_levels_do_not_mix(cohort):
    wrong = "ckks" if cohort.protection.level == "sealed" else "sealed"
    for make in (
        lambda: sealer_for(ProtectionChoice(level=wrong), cohort.key),
        lambda: opener_for(ProtectionChoice(level=wrong), cohort.key, 3),
        lambda: adder_for(wrong, cohort.key.public),
        lambda: adder_for("plain", cohort.key.public or b"x"),
    ):
        with pytest.raises(FedprivError):
            make()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(cohort, value):
    email = next(iter(cohort.keys))
    bad = np.zeros(50, np.float32)
    bad[7] = value
    with pytest.raises(GatekeeperError):
        cohort.seal(email, bad)
    with pytest.raises(GatekeeperError):
        cohort.seal(email, np.zeros(50, np.float32), residual=bad)


def test_wrong_shapes_and_types_are_refused(cohort):
    email = next(iter(cohort.keys))
    for bad in (np.zeros(50), np.zeros((10, 5), np.float32), np.zeros(51, np.float32)):
        with pytest.raises(GatekeeperError):
            cohort.sealer(email).seal(cohort.header(email, 50), bad, cohort.folder / "bad")
    huge = np.full(50, 3e38, np.float32)
    with pytest.raises(GatekeeperError):
        cohort.seal(email, huge, residual=huge, weight=1.0)
    assert not (cohort.folder / "bad").exists()


@pytest.mark.parametrize(
    "name,value",
    [
        ("study", "6" * 64),
        ("round", 2),
        ("attempt", 2),
        ("layout", "c" * 64),
        ("parameters", P + 1),
        ("level", None),
        ("key_id", "d" * 64),
        ("kind", "update"),
        ("members", {}),
    ],
)
def test_an_aggregate_with_another_header_is_refused(cohort, sums, name, value):
    path, manifest = sums[2:]
    copy, digest, _ = rewritten(cohort, path, lambda header, arrays: ({**header, name: value}, arrays))
    with pytest.raises(ContainerError):
        opener(cohort).open(copy, manifest=manifest.model_copy(update={"aggregate_sha256": digest}))


@pytest.mark.parametrize("field", ["study", "round", "attempt"])
def test_a_manifest_that_disagrees_is_refused(cohort, sums, field):
    manifest = sums[3].model_copy(update={field: "6" * 64 if field == "study" else 2})
    with pytest.raises(UntrustedError):
        opener(cohort).open(sums[2], manifest=manifest)


def test_a_manifest_with_fewer_updates_than_the_sum_is_refused(cohort, sums):
    path, manifest = sums[2:]
    fewer = manifest.updates[:2]

    def change(header, arrays):
        members = {update.header.member: update.header.weight for update in fewer}
        if "seeds" in arrays:
            arrays["seeds"] = arrays["seeds"][:, :2]
        return {**header, "members": members}, arrays

    copy, digest, _ = rewritten(cohort, path, change)
    with pytest.raises((ProtectionError, UntrustedError)):
        opener(cohort).open(copy, manifest=manifest.model_copy(update={"updates": fewer, "aggregate_sha256": digest}))


def test_updates_are_added_only_if_they_are_what_was_signed(cohort, sums):
    sealed = sums[1]
    adder = adder_for(cohort.protection.level, cohort.key.public)
    out = cohort.folder / "out"
    (first, path), *rest = sealed
    with pytest.raises(ContainerError):
        adder.add([(first, rest[0][1]), *rest], out)
    for changes in ({"round": 2}, {"weight": 0.5}, {"member": "eve@example.org"}):
        header = first.header.model_copy(update=changes)
        with pytest.raises(UntrustedError):
            adder.add([(first.model_copy(update={"header": header}), path), *rest], out)
    with pytest.raises(UntrustedError):
        adder.add([sealed[0], sealed[0]], out)
    with pytest.raises(UntrustedError):
        adder.add([], out)
    with pytest.raises(UntrustedError):
        adder.add([(first.model_copy(update={"container_bytes": first.container_bytes + 1}), path), *rest], out)
    assert not out.exists()


def test_mutants_are_refused_by_their_digest(cohort, sums):
    (first, path), *rest = sums[1]
    data = path.read_bytes()
    rng = random.Random(5)
    adder = adder_for(cohort.protection.level, cohort.key.public)
    mutant = cohort.folder / "mutant"
    for index in range(200):
        changed = bytearray(data)
        if index % 2:
            changed[rng.randrange(len(data) if index % 4 == 1 else 900)] ^= 1 << rng.randrange(8)
        else:
            del changed[rng.randrange(len(data)) :]
        mutant.write_bytes(changed)
        with pytest.raises(ContainerError):
            adder.add([(first, mutant), *rest], cohort.folder / "out")


def test_mutants_that_were_signed_never_crash(cohort, sums):
    """A member that signs garbage: refused, or added as garbage, but never a crash or another error."""
    (first, path), *rest = sums[1]
    data = path.read_bytes()
    rng = random.Random(6)
    adder = adder_for(cohort.protection.level, cohort.key.public)
    mutant, out = cohort.folder / "mutant", cohort.folder / "out"
    opening = opener(cohort)
    refused = 0
    for index in range(120):
        changed = bytearray(data)
        for _ in range(index % 3 + 1):
            changed[rng.randrange(len(data) if index % 3 == 1 else 1100)] ^= 1 << rng.randrange(8)
        mutant.write_bytes(changed)
        signed = first.model_copy(update={"container_sha256": file_sha256(mutant), "container_bytes": len(changed)})
        updates = [(signed, mutant), *rest]
        try:
            digest, _ = adder.add(updates, out)
            opening.open(out, manifest=cohort.manifest(updates, digest))
        except (UntrustedError, ProtectionError):
            refused += 1
    assert refused > 40


def test_malformed_keys_are_refused(cohort):
    data = cohort.key.to_bytes()
    for wrong in (b"", b"[]", b"{}", data[:-2], data.replace(b'"level"', b'"lavel"'), data[:-1] + b',"x":1}'):
        with pytest.raises(UntrustedError):
            StudyKey.from_bytes(wrong)
    if not cohort.key.public:
        return
    for wrong in (b"", b"{}\n", cohort.key.public.replace(b'"fedpriv_key":1', b'"fedpriv_key":2'), b"\xff" * 99):
        with pytest.raises(UntrustedError):
            adder_for(cohort.protection.level, wrong)


@pytest.mark.parametrize("clients", [0, 1, 65])
@pytest.mark.parametrize("level", ["ckks", "sealed"])
def test_keys_for_impossible_cohorts_are_refused(level, clients):
    with pytest.raises(ProtectionError):
        make_study_key(ProtectionChoice(level=level), clients=clients, study=STUDY)


def test_plain_has_an_empty_key():
    key = make_study_key(ProtectionChoice(level="plain"), clients=3, study=STUDY)
    assert (key.key_id, key.public, key.secret) == ("", b"", b"")
