from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import ProtectionError, UntrustedError
from fedpriv.protection.bfv import (
    DEGREE,
    PRIME,
    SEED_BYTES,
    BfvContext,
    BfvDecryptor,
    BfvEncryptor,
    add_modular,
    largest_plain_bits,
)


@settings(max_examples=15, deadline=None)
@given(clients=st.integers(2, 16), seed=st.integers(0, 2**32 - 1))
def test_sums_are_exact_at_the_largest_modulus(clients, seed):
    bits = largest_plain_bits(clients)
    context = BfvContext(bits)
    secret = context.new_secret()
    encryptor, decryptor = BfvEncryptor(context, secret), BfvDecryptor(context, secret)
    rng = np.random.default_rng(seed)
    plains = rng.integers(0, 2**bits, (clients, DEGREE), dtype=np.uint64)
    plains[:, 0] = 2**bits - 1
    plains[:, 1] = 0
    ciphers = [encryptor.encrypt(plain) for plain in plains]
    total = ciphers[0][0].copy()
    for c0, _ in ciphers[1:]:
        add_modular(total, c0)
    assert total.tolist() == [int(one) % PRIME for one in sum(c0.astype(object) for c0, _ in ciphers)]
    opened = decryptor.decrypt_sum(total, np.stack([seed for _, seed in ciphers]))
    assert opened.tolist() == (plains.astype(object).sum(axis=0) % 2**bits).tolist()


def test_encryption_is_fresh_each_time_and_half_size():
    context = BfvContext(40)
    encryptor = BfvEncryptor(context, context.new_secret())
    plain = np.zeros(DEGREE, np.uint64)
    ciphers = [encryptor.encrypt(plain) for _ in range(20)]
    assert len({seed.tobytes() for _, seed in ciphers}) == 20
    assert len({c0.tobytes() for c0, _ in ciphers}) == 20
    c0, seed = ciphers[0]
    assert (c0.dtype, c0.shape, seed.dtype, seed.shape) == (np.uint64, (DEGREE,), np.uint8, (SEED_BYTES,))
    assert int(c0.max()) < PRIME
    assert abs(float(c0.mean()) / PRIME - 0.5) < 6 * 0.2887 / DEGREE**0.5


def test_an_all_zero_plaintext_opens_to_zeros():
    context = BfvContext(40)
    secret = context.new_secret()
    c0, seed = BfvEncryptor(context, secret).encrypt(np.zeros(DEGREE, np.uint64))
    assert not BfvDecryptor(context, secret).decrypt_sum(c0, seed[np.newaxis]).any()


def test_another_key_opens_noise():
    context = BfvContext(40)
    encryptor = BfvEncryptor(context, context.new_secret())
    decryptor = BfvDecryptor(context, context.new_secret())
    c0, seed = encryptor.encrypt(np.zeros(DEGREE, np.uint64))
    opened = decryptor.decrypt_sum(c0, seed[np.newaxis])
    assert np.unique(opened).size > 4000
    assert abs(float(opened.mean()) / 2**40 - 0.5) < 6 * 0.2887 / DEGREE**0.5


def test_the_order_of_the_bound():
    bits = [largest_plain_bits(clients) for clients in range(2, 65)]
    assert bits == sorted(bits, reverse=True)
    for clients, most in zip(range(2, 65), bits, strict=True):
        assert 2 ** (most + 1) * (21.5 * clients + 1) < PRIME <= 2 ** (most + 2) * (21.5 * clients + 1)


@pytest.mark.parametrize("length", [0, 10, 100, 20_000])
def test_bad_secrets_are_refused(length):
    context = BfvContext(40)
    secret = context.new_secret()
    for wrong in (secret[:length], bytes(length), b"x" * 2**18, BfvContext(41).new_secret()):
        with pytest.raises(UntrustedError):
            BfvEncryptor(context, wrong)


def test_coefficients_out_of_range_are_refused():
    context = BfvContext(40)
    secret = context.new_secret()
    c0, seed = BfvEncryptor(context, secret).encrypt(np.zeros(DEGREE, np.uint64))
    c0[5] = PRIME
    with pytest.raises(UntrustedError):
        BfvDecryptor(context, secret).decrypt_sum(c0, seed[np.newaxis])


def test_foreign_streams_are_refused():
    context = BfvContext(40)
    encryptor = BfvEncryptor(context, context.new_secret())
    stream = context.bridge.saved(
        encryptor._encryptor.encrypt_symmetric(context.plaintext(np.zeros(DEGREE, np.uint64)))
    )
    c0, seed = context.split(stream)
    assert (c0.size, seed.size) == (DEGREE, SEED_BYTES)
    for position in (0, 3, 4, 5, 9, 16, 20, 22, 24, 30, 60, 110):
        changed = bytearray(stream)
        changed[position] ^= 0x41
        with pytest.raises(ProtectionError):
            context.split(bytes(changed))
    for wrong in (b"", stream[:-1], stream + b"x", stream[:20]):
        with pytest.raises(ProtectionError):
            context.split(wrong)
