"""The positive control of every view: were the protection missing, the readings would be the update."""

import tempfile

import numpy as np
import pytest
import tenseal as ts
from tenseal import sealapi

from fedpriv.errors import ContainerError
from fedpriv.leakage import Rehearsal
from fedpriv.leakage.readings import ckks_tuned_without_secret, ckks_without_secret, values_of, without_secret, zero_key
from fedpriv.protection import bfv, levels, masks
from fedpriv.protection.ckks import CkksSealer, load_public, make_ckks_keys
from fedpriv.protection.ckks_tuned import CkksTunedSealer, make_ckks_tuned_key
from fedpriv.protection.packing import plan_packing
from fedpriv.study.protection_choice import ProtectionChoice
from tests.leakage.conftest import noise

LAYOUT = {"x.lora_A.weight": (8, 700), "x.lora_B.weight": (90, 8)}
CLIP = 5e-3


def values(count=3000):
    return np.random.default_rng(7).uniform(-1, 1, count).astype(np.float32)


def keys_with_secret_zero():
    """A public CKKS context whose public key belongs to the secret key zero: it encrypts nothing."""
    public, secret = make_ckks_keys()
    context = ts.context_from(public)
    seal = context.seal_context().data
    key = sealapi.KeyGenerator(seal).secret_key()
    key.data().set_zero()
    other = sealapi.PublicKey()
    sealapi.KeyGenerator(seal, key).create_public_key(other)
    with tempfile.NamedTemporaryFile() as file:  # it is the zero key's: there is no secret in it
        other.save(file.name)
        context.data.public_key().load(seal, file.name)
    saved = context.serialize(
        save_public_key=True, save_secret_key=False, save_galois_keys=False, save_relin_keys=False
    )
    return saved, secret


@pytest.mark.parametrize("security", [None, "tc192", "tc256"])
@pytest.mark.parametrize("bits", [4, 10, 16])
def test_without_masks_and_key_the_reading_is_the_update(security, bits):
    packing = plan_packing(bits=bits, clients=3, security=security)
    rng = np.random.default_rng(1)
    digits, _, _ = packing.quantise(rng.uniform(-1, 1, 2 * packing.width).astype(np.float32), rng)
    words = np.zeros((2, 4096), np.uint64)
    words[:, : packing.value_words] = packing.pack(digits)
    if packing.prime:  # a ciphertext with the secret key zero, and the noise of the scheme
        shift, off = 2**packing.plain_bits, rng.integers(-21, 22, words.shape).astype(object)
        words = (((words.astype(object) * packing.prime + shift // 2) // shift + off) % packing.prime).astype(np.uint64)
        words = without_secret(packing, words)
    read = values_of(packing, words)
    np.testing.assert_array_equal(np.rint(read * packing.half).astype(int), digits.astype(int) - packing.half)


def test_what_the_tuned_ckks_encrypts_with_the_key_zero_everybody_reads():
    seen = ckks_tuned_without_secret(CkksTunedSealer(zero_key()).seal(0, values()).rows)
    np.testing.assert_allclose(seen[:3000], values(), atol=1e-3)
    hidden = ckks_tuned_without_secret(CkksTunedSealer(make_ckks_tuned_key()).seal(0, values()).rows)
    assert abs(np.corrcoef(hidden[:3000], values())[0, 1]) < 5 / np.sqrt(3000)


def test_what_ckks_encrypts_for_the_key_zero_everybody_reads():
    public, _ = keys_with_secret_zero()
    load_public(public)  # it is one that all parties would take
    seen = ckks_without_secret(public, CkksSealer(public).seal(0, values()).rows)
    np.testing.assert_allclose(seen[:3000], values(), atol=1e-3)
    honest, _ = make_ckks_keys()
    hidden = ckks_without_secret(honest, CkksSealer(honest).seal(0, values()).rows)
    assert abs(np.corrcoef(hidden[:3000], values())[0, 1]) < 5 / np.sqrt(3000)


@pytest.mark.parametrize("level", ["ckks", "ckks-tuned", "masked", "sealed"])
def test_a_cohort_whose_protection_is_missing_shows_its_updates_to_the_store(tmp_path, monkeypatch, level):
    """From update to container and back all is as in a study, but for the secrets, which are zero."""
    monkeypatch.setattr(levels, "make_ckks_keys", keys_with_secret_zero)
    monkeypatch.setattr(levels, "make_ckks_tuned_key", zero_key)
    monkeypatch.setattr(bfv.BfvEncryptor, "_products", lambda self, first, blocks: np.zeros((blocks, 4096), np.uint64))
    monkeypatch.setattr(masks.MaskReader, "words", lambda self, first, blocks: np.zeros((blocks, 4096), np.uint64))
    cohort = Rehearsal(ProtectionChoice(level=level), LAYOUT, tmp_path, clip=CLIP)
    sent = [noise(LAYOUT, seed) for seed in range(3)]
    view = cohort.store_view(cohort.publish(sent)[1])
    for name in LAYOUT:
        np.testing.assert_allclose(view.tensors[name], sent[1][name] / 3, atol=1.01 * CLIP / 511)


def test_rows_that_are_none_are_refused():
    public, _ = make_ckks_keys()
    with pytest.raises(ContainerError):
        ckks_without_secret(public, np.zeros((1, 100), np.uint8))
    with pytest.raises(ContainerError):
        ckks_tuned_without_secret(np.zeros((1, 100), np.uint8))
