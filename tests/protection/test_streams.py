from __future__ import annotations

import math
import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.protection.packing import NOISE, PRIMES
from fedpriv.protection.streams import (
    NoiseSource,
    StreamReader,
    stream_words,
    ternary_polynomial,
    uniform_polynomials,
)
from tests.protection.helpers import least_p

KEY = bytes(range(32))


def words_of(key: bytes, block: int) -> list[int]:
    """A block of the stream, from the definition: AES-256 in counter mode, 2048 counters a block."""
    counter = (2048 * block).to_bytes(16, "big")
    data = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(32768))
    return [int.from_bytes(data[place : place + 8], "little") for place in range(0, 32768, 8)]


def test_streams_are_aes_in_counter_mode_and_can_be_cut_anywhere():
    whole = stream_words(KEY, 0, 5)
    assert whole.tolist() == [words_of(KEY, block) for block in range(5)]
    np.testing.assert_array_equal(stream_words(KEY, 3, 2), whole[3:])
    reader = StreamReader(KEY, 2)
    for block in (2, 3, 4):
        np.testing.assert_array_equal(reader.read(), whole[block])


@settings(max_examples=25, deadline=None)
@given(
    key=st.binary(min_size=32, max_size=32),
    first=st.integers(0, 10**6),
    prime=st.sampled_from([*PRIMES.values(), 3 * 2**57 + 1, 2**60 + 1, 2**20 + 7, 5]),
)
def test_uniform_polynomials_by_the_definition(key, first, prime):
    """With limits just over a power of two, half of the words are replaced, and spares run into the next block."""
    modulus = 2 ** prime.bit_length()

    def slow(block: int) -> list[int]:
        spares = (
            word % modulus
            for piece in range(1, 6)
            for word in words_of(key, piece * 2**40 + block)
            if word % modulus < prime
        )
        return [word if word < prime else next(spares) for word in (w % modulus for w in words_of(key, block))]

    assert uniform_polynomials(key, first, 2, prime).tolist() == [slow(first), slow(first + 1)]


def test_uniform_polynomials_are_even():
    prime = 2**60 + 1  # worst of all: nearly half are replaced
    words = uniform_polynomials(KEY, 0, 20, prime).reshape(-1)
    assert int(words.max()) < prime
    assert least_p(words, 60) > 1e-7


def test_ternary_polynomials_by_the_definition():
    for key in (KEY, bytes(32), os.urandom(32)):
        data = b"".join(word.to_bytes(8, "little") for word in words_of(key, 0)[:256])
        numbers = [byte >> shift & 3 for byte in data for shift in (0, 2, 4, 6)]
        assert ternary_polynomial(key).tolist() == [number - 1 for number in numbers if number < 3][:4096]


def test_ternary_polynomials_are_even_and_each_is_another():
    found = np.stack([ternary_polynomial(os.urandom(32)) for _ in range(50)])
    assert found.shape == (50, 4096)
    counts = np.bincount(found.reshape(-1) + 1, minlength=3)
    assert np.abs(counts / found.size - 1 / 3).max() < 6 * (2 / 9 / found.size) ** 0.5
    assert np.abs(np.corrcoef(found) - np.eye(50)).max() < 0.1


def test_noise_is_centred_binomial_and_never_the_same():
    source = NoiseSource()
    noise = np.concatenate([source.polynomials(10) for _ in range(10)])
    assert noise.shape == (100, 4096)
    assert np.abs(noise).max() <= NOISE
    assert abs(noise.mean()) < 6 * (10.5 / noise.size) ** 0.5
    assert abs(noise.var() - 10.5) < 6 * 10.5 * (2 / noise.size) ** 0.5
    assert len({row.tobytes() for row in noise}) == 100
    assert not np.array_equal(NoiseSource().polynomials(1), NoiseSource().polynomials(1))


def test_noise_has_the_tails_of_its_coins():
    """Compared with the exact distribution: P(e = j) = C(42, 21 + j) / 2^42."""
    noise = NoiseSource().polynomials(200).reshape(-1)
    for value in range(-12, 13):
        expected = math.comb(42, 21 + value) / 2**42
        found = np.count_nonzero(noise == value) / noise.size
        assert abs(found - expected) < 6 * (expected / noise.size) ** 0.5
