from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import ContainerError, ProtectionError, UntrustedError
from fedpriv.protection.bfv import DEGREE, SEED_BYTES, BfvContext, BfvDecryptor, BfvEncryptor, add_modular
from fedpriv.protection.packing import NOISE, PRIMES, exact, plan_packing
from tests.protection.helpers import expanded, phase, stolen_secret

PRIME = PRIMES["tc192"]


@pytest.mark.parametrize("security", ["tc192", "tc256"])
def test_seal_accepts_both_primes_at_their_security(security):
    context = BfvContext(40, PRIMES[security])
    assert [modulus.value() for modulus in context.seal.first_context_data().parms().coeff_modulus()] == [
        PRIMES[security]
    ]
    assert context.seal.parameters_set()


def test_the_larger_prime_is_refused_at_the_higher_security(monkeypatch):
    monkeypatch.setitem(PRIMES, "tc256", PRIME)
    monkeypatch.delitem(PRIMES, "tc192")
    with pytest.raises(ProtectionError, match="SEAL refuses"):
        BfvContext(40, PRIME)


@settings(max_examples=12, deadline=None)
@given(clients=st.integers(2, 8), seed=st.integers(0, 2**32 - 1), security=st.sampled_from(["tc192", "tc256"]))
def test_sums_are_those_of_pythons_integers(clients, seed, security):
    prime = PRIMES[security]
    bits = plan_packing(bits=10, clients=clients, security=security).plain_bits
    context = BfvContext(bits, prime)
    secret = context.new_secret()
    encryptor, decryptor = BfvEncryptor(context, secret), BfvDecryptor(context, secret)
    plains = np.random.default_rng(seed).integers(0, 2**bits, (clients, DEGREE), dtype=np.uint64)
    plains[:, 0] = 2**bits - 1
    plains[:, 1] = 0
    ciphers = [encryptor.encrypt(plain) for plain in plains]
    total = ciphers[0][0].copy()
    for c0, _ in ciphers[1:]:
        add_modular(total, c0, prime)
    assert total.tolist() == [int(one) % prime for one in sum(c0.astype(object) for c0, _ in ciphers)]
    opened = decryptor.decrypt_sum(total, np.stack([one for _, one in ciphers]))
    assert opened.tolist() == (plains.astype(object).sum(axis=0) % 2**bits).tolist()


@pytest.mark.parametrize(
    ("clients", "bits", "security"),
    [(2, 4, "tc192"), (4, 10, "tc192"), (4, 10, "tc256"), (16, 8, "tc192"), (64, 10, "tc192"), (5, 16, "tc256")],
)
def test_one_more_dropped_bit_breaks_the_bound_and_the_result(clients, bits, security):
    """All noise and all that is lost is as large as the plan allows, in the same direction; then a bit more."""
    packing = plan_packing(bits=bits, clients=clients, security=security)
    context = BfvContext(packing.plain_bits, packing.prime)
    secret = context.new_secret()
    polynomial = stolen_secret(context, secret)
    encryptor, decryptor = BfvEncryptor(context, secret), BfvDecryptor(context, secret)
    words = np.random.default_rng(bits).integers(0, 2**packing.plain_bits // clients, DEGREE, dtype=np.uint64)
    encoded = [(packing.prime * x + 2 ** (packing.plain_bits - 1)) >> packing.plain_bits for x in words.tolist()]
    total, seeds, noise = np.zeros(DEGREE, object), [], np.zeros(DEGREE, object)
    for _ in range(min(clients, 4)):
        c0, seed = encryptor.encrypt(words)
        found = np.array(phase(context, *expanded(context, c0, seed), polynomial), object) - encoded
        found = (found + packing.prime // 2) % packing.prime - packing.prime // 2
        assert 8 < np.abs(found).max() <= NOISE
        total, noise = total + c0, noise + found
        seeds.append(seed)
    total = total + (clients - len(seeds)) * np.array(encoded, object)  # the others without noise and mask

    def opened(dropped: int, sign: int) -> list[int]:
        worst = sign * (NOISE * clients + (clients + 1) * 2 ** (dropped - 1))
        c0 = ((total - noise + worst) % packing.prime).astype(np.uint64)
        return decryptor.decrypt_sum(c0, np.stack(seeds)).tolist()

    expected = (words * np.uint64(clients)).tolist()
    one_more = dataclasses.replace(packing, dropped_bits=packing.dropped_bits + 1)
    assert exact(packing)
    assert not exact(one_more)
    for sign in (1, -1):
        assert opened(packing.dropped_bits, sign) == expected
        assert opened(one_more.dropped_bits, sign) != expected


def test_adding_modulo_the_prime_never_wraps():
    edge = np.array([0, 0, 1, PRIME - 1, PRIME - 1, PRIME // 2], np.uint64)
    part = np.array([0, PRIME - 1, PRIME - 1, 1, PRIME - 1, PRIME // 2 + 1], np.uint64)
    total = edge.copy()
    add_modular(total, part, PRIME)
    assert total.tolist() == [(a + b) % PRIME for a, b in zip(edge.tolist(), part.tolist(), strict=True)]


def test_encryption_is_fresh_each_time_and_half_size():
    context = BfvContext(40, PRIME)
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
    context = BfvContext(40, PRIME)
    secret = context.new_secret()
    c0, seed = BfvEncryptor(context, secret).encrypt(np.zeros(DEGREE, np.uint64))
    assert not BfvDecryptor(context, secret).decrypt_sum(c0, seed[np.newaxis]).any()


def test_another_key_opens_noise():
    context = BfvContext(40, PRIME)
    c0, seed = BfvEncryptor(context, context.new_secret()).encrypt(np.zeros(DEGREE, np.uint64))
    opened = BfvDecryptor(context, context.new_secret()).decrypt_sum(c0, seed[np.newaxis])
    assert np.unique(opened).size > 4000
    assert abs(float(opened.mean()) / 2**40 - 0.5) < 6 * 0.2887 / DEGREE**0.5


@pytest.mark.parametrize("length", [0, 10, 100, 20_000])
def test_bad_secrets_are_refused(length):
    context = BfvContext(40, PRIME)
    secret = context.new_secret()
    for wrong in (secret[:length], bytes(length), b"x" * 2**18, BfvContext(41, PRIME).new_secret()):
        with pytest.raises(UntrustedError, match="cannot be read"):
            BfvEncryptor(context, wrong)


def test_coefficients_out_of_range_are_refused():
    context = BfvContext(40, PRIME)
    secret = context.new_secret()
    c0, seed = BfvEncryptor(context, secret).encrypt(np.zeros(DEGREE, np.uint64))
    c0[5] = PRIME
    with pytest.raises(ContainerError):
        BfvDecryptor(context, secret).decrypt_sum(c0, seed[np.newaxis])


def test_foreign_streams_are_refused():
    context = BfvContext(40, PRIME)
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
