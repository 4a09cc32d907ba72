from __future__ import annotations

import dataclasses
import itertools
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import ContainerError, ProtectionError, UntrustedError
from fedpriv.protection.bfv import DEGREE, BfvContext, BfvDecryptor, BfvEncryptor, BfvKeys, _seal_context, add_modular
from fedpriv.protection.packing import NOISE, PRIMES, exact, plan_packing
from fedpriv.protection.streams import ternary_polynomial, uniform_polynomials
from fedpriv.study import UpdateHeader
from tests.protection.helpers import least_p, phase

PRIME = PRIMES["tc192"]
SECRET = bytes(range(32))


def header(**changes) -> UpdateHeader:
    values = {
        "study": "5" * 64,
        "round": 3,
        "attempt": 2,
        "member": "a@example.org",
        "cohort": "c" * 64,
        "level": "sealed",
        "bits": 10,
        "weight": 0.5,
        "nonce": "0" * 32,
        "key_id": "e" * 64,
        "layout": "b" * 64,
        "scales": "d" * 64,
        "parameters": 99,
    }
    return UpdateHeader(**(values | changes))


def new_keys(members: int = 1) -> BfvKeys:
    return BfvKeys(common=os.urandom(32), secrets=tuple(os.urandom(32) for _ in range(members)))


def of_member(keys: BfvKeys, member: int) -> BfvKeys:
    return dataclasses.replace(keys, secrets=keys.secrets[member : member + 1])


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
    _seal_context.cache_clear()
    with pytest.raises(ProtectionError, match="SEAL refuses"):
        BfvContext(40, PRIME)


@settings(max_examples=30, deadline=None)
@given(
    bits=st.integers(20, 52),
    security=st.sampled_from(["tc192", "tc256"]),
    words=st.lists(st.integers(0, 2**52 - 1), min_size=1, max_size=20),
)
def test_words_are_scaled_to_the_nearest_integer(bits, security, words):
    prime, modulus = PRIMES[security], 2**bits
    words = [word % modulus for word in words] + [0, 1, modulus // 2, modulus - 1]
    found = BfvContext(bits, prime).scaled(np.array(words, np.uint64))
    assert found.tolist() == [(prime * word + modulus // 2) // modulus for word in words]


@settings(max_examples=12, deadline=None)
@given(
    clients=st.integers(2, 8),
    blocks=st.integers(1, 3),
    first=st.integers(0, 1000),
    security=st.sampled_from(["tc192", "tc256"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_sums_are_those_of_pythons_integers(clients, blocks, first, security, seed):
    prime = PRIMES[security]
    bits = plan_packing(bits=10, clients=clients, security=security).plain_bits
    context, keys = BfvContext(bits, prime), new_keys(clients)
    plains = np.random.default_rng(seed).integers(0, 2**bits, (clients, blocks, DEGREE), dtype=np.uint64)
    plains[:, :, 0] = 2**bits - 1
    plains[:, :, 1] = 0
    ciphers = [BfvEncryptor(context, of_member(keys, k)).encrypt(first, plains[k]) for k in range(clients)]
    assert all(int(c0.max()) < prime for c0 in ciphers)
    total = ciphers[0].copy()
    for c0 in ciphers[1:]:
        add_modular(total, c0, prime)
    assert total.tolist() == (sum(c0.astype(object) for c0 in ciphers) % prime).tolist()
    opened = BfvDecryptor(context, keys).decrypt_sum(first, total)
    assert opened.tolist() == (plains.astype(object).sum(axis=0) % 2**bits).tolist()


@pytest.mark.parametrize("security", ["tc192", "tc256"])
def test_a_ciphertext_is_what_the_module_says_by_schoolbook_arithmetic(security):
    """Without SEAL: ``c0 + a s`` is the scaled word and noise of the right size and spread."""
    prime, bits = PRIMES[security], 40
    context, keys = BfvContext(bits, prime), new_keys()
    words = np.random.default_rng(1).integers(0, 2**bits, (3, DEGREE), dtype=np.uint64)
    c0 = BfvEncryptor(context, keys).encrypt(7, words)
    common = uniform_polynomials(keys.common, 7, 3, prime)
    secret = ternary_polynomial(keys.secrets[0])
    noise = []
    for block in range(3):
        found = phase(prime, c0[block], common[block], secret)
        scaled = [(prime * word + 2 ** (bits - 1)) >> bits for word in words[block].tolist()]
        noise += [(a - b + prime // 2) % prime - prime // 2 for a, b in zip(found, scaled, strict=True)]
    assert 8 < max(map(abs, noise)) <= NOISE
    assert abs(np.mean(noise)) < 6 * 10.5**0.5 / len(noise) ** 0.5
    assert 10 < np.var(noise) < 11


@pytest.mark.parametrize(
    ("clients", "bits", "security"),
    [(2, 4, "tc192"), (4, 10, "tc192"), (4, 10, "tc256"), (16, 8, "tc192"), (64, 10, "tc192"), (5, 16, "tc256")],
)
def test_one_more_dropped_bit_breaks_the_bound_and_the_result(clients, bits, security):
    """All noise and all that is lost is as large as the plan allows, in the same direction; then a bit more."""
    packing = plan_packing(bits=bits, clients=clients, security=security)
    context, keys = BfvContext(packing.plain_bits, packing.prime), new_keys(clients)
    words = np.random.default_rng(bits).integers(0, 2**packing.plain_bits // clients, DEGREE, dtype=np.uint64)
    decryptor = BfvDecryptor(context, keys)
    # a S, which SEAL tells as it encrypts zeros under all secrets at once; its noise is taken off
    encryptor = BfvEncryptor(context, keys)
    encryptor._noise.polynomials = lambda blocks: np.zeros((blocks, DEGREE), np.int64)
    hidden = encryptor.encrypt(0, np.zeros((1, DEGREE), np.uint64))[0].astype(object)
    scaled = context.scaled(words).astype(object)

    def opened(dropped: int, sign: int) -> list[int]:
        worst = sign * (NOISE * clients + (clients + 1) * 2 ** (dropped - 1))
        c0 = ((hidden + clients * scaled + worst) % packing.prime).astype(np.uint64)
        return decryptor.decrypt_sum(0, c0[np.newaxis])[0].tolist()

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


def test_ciphertexts_look_uniform_and_no_noise_comes_twice():
    context, keys = BfvContext(40, PRIME), new_keys()
    plain = np.zeros((4, DEGREE), np.uint64)
    same = [BfvEncryptor(context, keys).encrypt(0, plain) for _ in range(5)]
    assert len({c0.tobytes() for c0 in same}) == 5
    for left, right in itertools.pairwise(same):  # the same a and s: what differs is the noise alone
        apart = (left - right).view(np.int64)
        apart = np.where(apart > PRIME // 2, apart - PRIME, np.where(apart < -PRIME // 2, apart + PRIME, apart))
        assert 0 < np.abs(apart).max() <= 2 * NOISE
    blocks = np.concatenate([BfvEncryptor(context, new_keys()).encrypt(0, plain) for _ in range(5)])
    assert least_p((blocks.reshape(-1).astype(np.float64) * (2**40 / PRIME)).astype(np.uint64), 40) > 1e-7


def test_two_sealings_differ_in_everything_that_hides_the_values():
    """The nonce gives a new secret: the difference of two sealings of one update is uniform, not their noise."""
    context = BfvContext(40, PRIME)
    plain = np.zeros((8, DEGREE), np.uint64)
    first, second = (
        BfvEncryptor(context, BfvKeys.of(SECRET, [header(nonce=nonce)], 0)).encrypt(0, plain)
        for nonce in ("0" * 32, "1" * 32)
    )
    apart = (first + np.uint64(PRIME) - second) % np.uint64(PRIME)
    assert least_p((apart.reshape(-1).astype(np.float64) * (2**40 / PRIME)).astype(np.uint64), 40) > 1e-7


@pytest.mark.parametrize(
    ("field", "value", "shared"),
    [
        ("study", "6" * 64, True),
        ("round", 4, True),
        ("attempt", 3, True),
        ("cohort", "6" * 64, True),
        ("key_id", "6" * 64, True),
        ("layout", "6" * 64, True),
        ("scales", "6" * 64, True),
        ("parameters", 100, True),
        ("level", "masked", True),
        ("member", "b@example.org", False),
        ("nonce", "1" * 32, False),
        ("weight", 0.25, None),
    ],
)
def test_keys_are_bound_to_the_sum_and_secrets_to_the_sealing(field, value, shared):
    known, other = (BfvKeys.of(SECRET, [header(**changes)], 0) for changes in ({}, {field: value}))
    assert (known.common != other.common) == (shared is True)
    assert (known.secrets != other.secrets) == (shared is not None)


def test_groups_and_study_keys_share_nothing():
    known = BfvKeys.of(SECRET, [header()], 0)
    for other in (BfvKeys.of(SECRET, [header()], 1), BfvKeys.of(SECRET[::-1], [header()], 0)):
        assert other.secrets != known.secrets
    assert BfvKeys.of(SECRET, [header()], 1).common != known.common
    both = BfvKeys.of(SECRET, [header(), header(member="b@example.org", nonce="1" * 32)], 0)
    assert both.common == known.common
    assert both.secrets[0] == known.secrets[0]
    assert np.array_equal(both.secret_sum(), sum(ternary_polynomial(secret) for secret in both.secrets))


@pytest.mark.parametrize("secret", [b"", SECRET[:-1], SECRET + b"x"])
def test_secrets_of_another_length_are_refused(secret):
    with pytest.raises(UntrustedError, match="not 32 bytes"):
        BfvKeys.of(secret, [header()], 0)


def test_keys_do_not_show_their_secrets():
    keys = new_keys(2)
    assert not any(repr(secret) in repr(keys) for secret in keys.secrets)


def test_an_all_zero_plaintext_opens_to_zeros():
    context, keys = BfvContext(40, PRIME), new_keys()
    c0 = BfvEncryptor(context, keys).encrypt(0, np.zeros((1, DEGREE), np.uint64))
    assert not BfvDecryptor(context, keys).decrypt_sum(0, c0).any()


@pytest.mark.parametrize("wrong", ["secret", "common", "block"])
def test_anything_else_opens_noise(wrong):
    context, keys = BfvContext(40, PRIME), new_keys()
    c0 = BfvEncryptor(context, keys).encrypt(0, np.zeros((8, DEGREE), np.uint64))
    other = {
        "secret": dataclasses.replace(keys, secrets=new_keys().secrets),
        "common": dataclasses.replace(keys, common=os.urandom(32)),
        "block": keys,
    }[wrong]
    opened = BfvDecryptor(context, other).decrypt_sum(1 if wrong == "block" else 0, c0)
    assert least_p(opened.reshape(-1), 40) > 1e-7


def test_coefficients_out_of_range_are_refused():
    context, keys = BfvContext(40, PRIME), new_keys()
    c0 = BfvEncryptor(context, keys).encrypt(0, np.zeros((1, DEGREE), np.uint64))
    c0[0, 5] = PRIME
    with pytest.raises(ContainerError):
        BfvDecryptor(context, keys).decrypt_sum(0, c0)


def test_pairs_of_polynomials_come_back():
    context = BfvContext(40, PRIME)
    pair = uniform_polynomials(SECRET, 0, 2, PRIME)
    np.testing.assert_array_equal(context.polynomials(context.pair(*pair)), pair)


def test_foreign_streams_are_refused():
    from tenseal import sealapi

    context, other = BfvContext(40, PRIME), BfvContext(41, PRIME)
    pair = uniform_polynomials(SECRET, 0, 2, PRIME)
    with pytest.raises(ProtectionError, match="another form"):
        context.polynomials(other.pair(*pair))  # its parameters' identifier is another
    with pytest.raises(ProtectionError, match="another form"):
        context.words(context.transformed(np.ones(DEGREE, np.int64)))  # a plaintext in the transformed form
    with pytest.raises(ProtectionError, match="another form"):
        context.polynomials(sealapi.Ciphertext())
