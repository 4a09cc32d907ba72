from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import ContainerError, ProtectionError
from fedpriv.files import file_sha256
from fedpriv.protection import MaskSource, adder_for, make_study_key, opener_for, sealer_for
from fedpriv.protection.bfv import DEGREE, BfvContext, BfvDecryptor
from fedpriv.protection.container import read_container
from fedpriv.protection.sealed import SealedSealer, masked_block
from tests.protection.helpers import STUDY, make_cohort

DTYPES = {"c0": "uint64", "seeds": "uint8"}


class Recorder:
    """Passes digits on, and remembers them as Python integers."""

    def __init__(self, codec):
        self._codec = codec
        self.seen: list[int] = []

    def __getattr__(self, name):
        return getattr(self._codec, name)

    def quantise(self, values, rng):
        result = self._codec.quantise(values, rng)
        self.seen += result[0].tolist()
        return result


@settings(max_examples=20, deadline=None)
@given(
    clients=st.integers(2, 6),
    bits=st.integers(8, 16),
    parameters=st.integers(1, 30_000),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_opened_sum_is_the_integer_sum(tmp_path_factory, clients, bits, parameters, seed):
    cohort = make_cohort(tmp_path_factory.mktemp("s"), "sealed", clients=clients, bits=bits)
    rng = np.random.default_rng(seed)
    total = [0] * parameters
    updates = []
    for email in cohort.keys:
        sealer = cohort.sealer(email)
        sealer.codec = recorder = Recorder(sealer.codec)
        update = (rng.standard_normal(parameters) * rng.choice([1e-4, 0.03, 1.0])).astype(np.float32)
        updates.append(cohort.seal(email, update, sealer=sealer)[1])
        total = [one + two for one, two in zip(total, recorder.seen, strict=True)]
    digest, _ = adder_for("sealed", cohort.key.public).add(updates, cohort.folder / "sum")
    opener = opener_for(cohort.protection, cohort.key, clients)
    manifest = cohort.manifest(updates, digest)
    assert opener.open_sums(cohort.folder / "sum", manifest=manifest).tolist() == total
    half = 2 ** (bits - 1) - 1
    expected = [(value - clients * half) * (0.05 / half) for value in total]
    np.testing.assert_array_equal(opener.open(cohort.folder / "sum", manifest=manifest), expected)


@pytest.fixture
def cohort(tmp_path):
    return make_cohort(tmp_path, "sealed")


def decrypted(cohort, path, count=1):
    """What a key holder gets from one container, without any check."""
    codec = cohort.sealer("domain0@example.org").codec
    decryptor = BfvDecryptor(BfvContext(codec.plain_bits), cohort.key.secret)
    _, arrays = read_container(path, max_bytes=2**30, expect_sha256=file_sha256(path), dtypes=DTYPES)
    blocks = zip(arrays["c0"], arrays["seeds"], strict=True)
    return codec, np.stack([decryptor.decrypt_sum(c0, seed.reshape(count, -1)) for c0, seed in blocks])


def test_one_update_decrypts_to_uniform_noise(cohort):
    _, (_, path) = cohort.seal("domain1@example.org", np.zeros(30_000, np.float32))
    codec, opened = decrypted(cohort, path)
    flat = opened.reshape(-1)
    assert flat.size >= 4 * DEGREE
    counts = np.bincount((flat >> np.uint64(codec.plain_bits - 6)).astype(int), minlength=64)
    expected = flat.size / 64
    assert float(((counts - expected) ** 2 / expected).sum()) < 63 + 6 * (2 * 63) ** 0.5
    low = np.bincount((flat & np.uint64(63)).astype(int), minlength=64)
    assert float(((low - expected) ** 2 / expected).sum()) < 63 + 6 * (2 * 63) ** 0.5
    assert not np.any(opened[:, -1] == 1)


def test_a_part_of_the_cohort_does_not_open(cohort):
    updates = [cohort.seal(email, np.zeros(100, np.float32))[1] for email in cohort.keys][:2]
    digest, _ = adder_for("sealed", cohort.key.public).add(updates, cohort.folder / "sum")
    opener = opener_for(cohort.protection, cohort.key, 3)
    with pytest.raises(ProtectionError, match="does not hold the updates"):
        opener.open(cohort.folder / "sum", manifest=cohort.manifest(updates, digest))
    digest, _ = adder_for("sealed", cohort.key.public).add(updates[:1], cohort.folder / "sum")
    with pytest.raises(ProtectionError, match="not opened"):
        opener.open(cohort.folder / "sum", manifest=cohort.manifest(updates[:1], digest))


def test_members_that_agreed_on_fewer_open_their_sum(cohort):
    members = list(cohort.keys)[:2]
    identities = [cohort.keys[email].identity for email in members]
    updates = []
    for email in members:
        masks = MaskSource.of_cohort(cohort.keys[email], identities, study=STUDY)
        sealer = sealer_for(cohort.protection, cohort.key, masks=masks)
        updates.append(cohort.seal(email, np.full(100, 0.01, np.float32), sealer=sealer, weight=0.5)[1])
    digest, _ = adder_for("sealed", cohort.key.public).add(updates, cohort.folder / "sum")
    opened = opener_for(cohort.protection, cohort.key, 3).open(
        cohort.folder / "sum", manifest=cohort.manifest(updates, digest)
    )
    np.testing.assert_allclose(opened, 0.01, atol=1e-5)


def test_a_wrong_secret_is_noticed_by_the_count(cohort):
    updates = [cohort.seal(email, np.zeros(100, np.float32))[1] for email in cohort.keys]
    digest, _ = adder_for("sealed", cohort.key.public).add(updates, cohort.folder / "sum")
    opener = opener_for(cohort.protection, cohort.key, 3)
    context = BfvContext(opener.codec.plain_bits)
    opener._decryptor = BfvDecryptor(context, context.new_secret())
    with pytest.raises(ProtectionError, match="the key is another"):
        opener.open(cohort.folder / "sum", manifest=cohort.manifest(updates, digest))


def test_clipped_values_go_into_the_residual(cohort):
    update = np.array([0.3, -0.3, 0.03, 0.0], np.float32)
    sealed, _ = cohort.seal("domain0@example.org", update, weight=0.5)
    assert sealed.clipped == 2
    step = 0.05 / 32767
    np.testing.assert_allclose(sealed.residual[:2], [0.1, -0.1], atol=1e-7)
    assert np.all(np.abs(sealed.residual[2:]) <= step)


def test_residuals_carry_over(cohort):
    """Over many rounds, the mean of what leaves is the mean of the updates: nothing is lost to rounding or clipping."""
    cohort = make_cohort(cohort.folder, "sealed", bits=8)
    update = np.array([0.2, 1e-5, -0.02], np.float32)
    residual, sent = None, np.zeros(3)
    codec = cohort.sealer("domain0@example.org").codec
    for round in range(1, 21):
        sealer = cohort.sealer("domain0@example.org")
        sealer.codec = recorder = Recorder(sealer.codec)
        share = update if round <= 4 else np.zeros(3, np.float32)
        sealed, _ = cohort.seal("domain0@example.org", share, sealer=sealer, residual=residual, round=round, weight=1.0)
        residual = sealed.residual
        sent += codec.dequantise(np.array(recorder.seen, np.uint64), 1)
    np.testing.assert_allclose(sent + residual, 4 * update, atol=1e-6)
    assert np.all(np.abs(residual) <= codec.step)


def test_blocks_are_uniform_under_uniform_masks_and_exact_without():
    key = make_cohort_codec()
    digits = np.arange(10, dtype=np.uint64)
    block = masked_block(key, digits, np.zeros(DEGREE, np.uint64))
    assert block[-1] == 1
    assert key.unpack(block[:-1], 10).tolist() == digits.tolist()
    masks = np.random.default_rng(0).integers(0, 2**64, DEGREE, dtype=np.uint64)
    masked = masked_block(key, digits, masks)
    modulus = 2**key.plain_bits
    expected = [(int(one) + int(two)) % modulus for one, two in zip(block, masks, strict=True)]
    assert masked.tolist() == expected


def make_cohort_codec():
    from fedpriv.protection.codec import plan_codec

    return plan_codec(bits=10, clip=0.1, clients=5)


def test_a_seed_used_twice_is_refused(cohort):
    from fedpriv.protection.container import write_container

    sealed = [cohort.seal(email, np.zeros(20_000, np.float32))[1] for email in cohort.keys]
    signed, path = sealed[0]
    header, arrays = read_container(path, max_bytes=2**30, expect_sha256=signed.container_sha256, dtypes=DTYPES)
    arrays["seeds"][1] = arrays["seeds"][0]
    digest, size = write_container(path, header, arrays)
    signed = signed.model_copy(update={"container_sha256": digest, "container_bytes": size})
    with pytest.raises(ContainerError, match="seed"):
        adder_for("sealed", cohort.key.public).add([(signed, path), *sealed[1:]], cohort.folder / "sum")


def test_masks_are_needed_and_must_fit(cohort):
    with pytest.raises(ProtectionError, match="masks"):
        sealer_for(cohort.protection, cohort.key)
    masks = MaskSource.of_cohort(cohort.keys["domain0@example.org"], cohort.identities.values(), study="6" * 64)
    with pytest.raises(ProtectionError):
        SealedSealer(cohort.protection, cohort.key, masks)
    small = make_study_key(cohort.protection, clients=2, study=STUDY)
    masks = MaskSource.of_cohort(cohort.keys["domain0@example.org"], cohort.identities.values(), study=STUDY)
    with pytest.raises(ProtectionError):
        SealedSealer(cohort.protection, small, masks)


def test_size_per_parameter(cohort):
    sealed, _ = cohort.seal("domain0@example.org", np.zeros(81_900, np.float32))
    assert sealed.size_bytes / 81_900 < 4.2


def test_the_aggregators_bytes_hold_no_secret(cohort):
    """The public bytes are parameters and a digest; the secret is drawn apart and no part of it occurs in them."""
    public = cohort.key.public
    assert public.endswith(b"\n")
    assert len(public) < 1000
    assert not any(cohort.key.secret[start : start + 16] in public for start in range(len(cohort.key.secret) - 16))
    adder = adder_for("sealed", public)
    assert not any("secret" in name or "decrypt" in name for name in vars(adder))
