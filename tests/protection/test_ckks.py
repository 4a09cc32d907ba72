from __future__ import annotations

import numpy as np
import pytest
import tenseal as ts

from fedpriv.errors import ContainerError, ProtectionError, UntrustedError
from fedpriv.files import file_sha256
from fedpriv.protection import StudyKey, adder_for, opener_for, sealer_for
from fedpriv.protection.ckks import VALUES, load_public, load_vector
from fedpriv.protection.container import read_container, write_container
from fedpriv.protection.roles import public_material
from tests.protection.helpers import make_cohort

DTYPES = {"blocks": "uint8", "sizes": "uint64"}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("ckks"), "ckks")


def contents(path):
    return read_container(path, max_bytes=2**30, expect_sha256=file_sha256(path), dtypes=DTYPES)


def test_the_aggregators_bytes_decrypt_nothing(cohort):
    _, (_, path) = cohort.seal("domain0@example.org", np.full(10, 0.01, np.float32))
    context = load_public(cohort.key.public)
    assert not context.is_private()
    assert not context.has_secret_key()
    assert not context.has_galois_keys()
    assert not context.has_relin_keys()
    _, arrays = contents(path)
    vector = load_vector(context, arrays["blocks"].tobytes(), 11)
    with pytest.raises(ValueError, match="secret"):
        vector.decrypt()
    other = ts.context(ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40])
    guess = load_vector(context, arrays["blocks"].tobytes(), 11).decrypt(other.secret_key())
    assert not np.allclose(guess[:10], 0.01, atol=1)


def test_a_public_key_with_a_secret_in_it_is_refused(cohort):
    public = cohort.key.public.removesuffix(public_material(cohort.key.public)) + cohort.key.secret
    with pytest.raises(UntrustedError, match="not only public"):
        adder_for("ckks", public)
    for material in (b"", b"x" * 1000, cohort.key.public[-5000:]):
        with pytest.raises(UntrustedError):
            adder_for("ckks", cohort.key.public.split(b"\n")[0] + b"\n" + material)


def test_blocks_and_sizes(cohort):
    parameters = 2 * VALUES + 5
    sealed, (_, path) = cohort.seal("domain0@example.org", np.zeros(parameters, np.float32))
    _, arrays = contents(path)
    assert arrays["sizes"].size == 3
    assert int(arrays["sizes"].sum()) == arrays["blocks"].size
    assert sealed.residual is None
    assert sealed.size_bytes == path.stat().st_size


@pytest.mark.parametrize("parameters", [1, VALUES - 1, VALUES, VALUES + 1])
def test_sums_at_block_edges(cohort, parameters):
    update = np.linspace(-1, 1, parameters, dtype=np.float32)
    updates = [cohort.seal(email, update)[1] for email in cohort.keys]
    digest, _ = adder_for("ckks", cohort.key.public).add(updates, cohort.folder / "sum")
    opener = opener_for(cohort.protection, cohort.key, 3)
    opened = opener.open(cohort.folder / "sum", manifest=cohort.manifest(updates, digest))
    np.testing.assert_allclose(opened, update, atol=1e-6)


def test_a_single_update_is_not_opened(cohort):
    updates = [cohort.seal("domain0@example.org", np.zeros(10, np.float32))[1]]
    digest, _ = adder_for("ckks", cohort.key.public).add(updates, cohort.folder / "sum")
    with pytest.raises(ProtectionError, match="single"):
        opener_for(cohort.protection, cohort.key, 3).open(
            cohort.folder / "sum", manifest=cohort.manifest(updates, digest)
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays | {"sizes": arrays["sizes"] + np.uint64(1)},
        lambda arrays: arrays | {"sizes": np.zeros_like(arrays["sizes"])},
        lambda arrays: arrays | {"sizes": np.full_like(arrays["sizes"], 2**63)},
        lambda arrays: arrays | {"sizes": arrays["sizes"][:1]},
        lambda arrays: arrays | {"blocks": arrays["blocks"][:-1]},
        lambda arrays: arrays | {"blocks": np.zeros_like(arrays["blocks"])},
        lambda arrays: arrays | {"blocks": np.roll(arrays["blocks"], 1)},
    ],
)
def test_wrong_blocks_are_refused(cohort, change):
    updates = [cohort.seal(email, np.zeros(VALUES + 3, np.float32))[1] for email in cohort.keys]
    signed, path = updates[0]
    header, arrays = contents(path)
    digest, size = write_container(path, header, change(arrays))
    signed = signed.model_copy(update={"container_sha256": digest, "container_bytes": size})
    with pytest.raises(ContainerError):
        adder_for("ckks", cohort.key.public).add([(signed, path), *updates[1:]], cohort.folder / "sum")


def test_a_damaged_secret_is_refused(cohort):
    for secret in (b"", b"x" * 100, cohort.key.secret[:1000], public_material(cohort.key.public)):
        key = StudyKey(level="ckks", public=cohort.key.public, secret=secret)
        sealer_for(cohort.protection, key)
        with pytest.raises(UntrustedError):
            opener_for(cohort.protection, key, 3)
