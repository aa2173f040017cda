from __future__ import annotations

import itertools
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.errors import SecureSumError
from llmchain_fl.core.secure.shamir import PRIME, combined, split, value_at

SECRET = bytes(range(32))


@given(st.binary(min_size=32, max_size=32), st.integers(1, 9), st.integers(0, 4), st.randoms(use_true_random=False))
def test_any_threshold_of_shares_gives_the_secret_back(
    secret: bytes, threshold: int, spare: int, draw: random.Random
) -> None:
    points = draw.sample(range(1, 50), threshold + spare)
    shares = split(secret, threshold, points)
    chosen = draw.sample(points, threshold)
    assert combined({point: shares[point] for point in chosen}) == secret
    assert combined(shares) == secret


def test_the_order_of_the_field_is_prime() -> None:
    # Lucas and Lehmer: 2**p - 1 is prime where s(p - 2) = 0, s(0) = 4, s(i + 1) = s(i)**2 - 2
    value = 4
    for _ in range(521 - 2):
        value = (value * value - 2) % PRIME
    assert value == 0


@pytest.mark.parametrize("threshold", [2, 3, 4])
def test_one_share_too_few_says_nothing(threshold: int) -> None:
    shares = split(SECRET, threshold, range(1, 6))
    for points in itertools.combinations(shares, threshold - 1):
        assert value_at({point: shares[point] for point in points}, 0) != int.from_bytes(SECRET, "big")


def test_what_one_holder_has_is_spread_over_the_whole_field_whatever_the_secret() -> None:
    for secret in (bytes(32), SECRET, b"\xff" * 32):
        low = [split(secret, 2, [1, 2])[1] * 16 // PRIME for _ in range(800)]
        counts = [low.count(part) for part in range(16)]
        assert min(counts) > 15  # 50 expected, 7 the deviation
        assert max(counts) < 100


def test_two_dealings_of_one_secret_share_nothing() -> None:
    one, other = split(SECRET, 3, range(1, 6)), split(SECRET, 3, range(1, 6))
    assert not set(one.values()) & set(other.values())


def test_with_threshold_one_every_share_is_the_secret() -> None:
    assert set(split(SECRET, 1, [1, 5, 9]).values()) == {int.from_bytes(SECRET, "big")}


@pytest.mark.parametrize(
    ("threshold", "points"), [(0, [1, 2]), (3, [1, 2]), (2, [0, 1]), (2, [1, 1, 2]), (2, [1, PRIME]), (1, [])]
)
def test_shares_that_cannot_be_dealt_are_refused(threshold: int, points: list[int]) -> None:
    with pytest.raises(SecureSumError, match="threshold"):
        split(SECRET, threshold, points)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_secret_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(SecureSumError, match="form"):
        split(bytes(size), 2, [1, 2])


@pytest.mark.parametrize("shares", [{}, {0: 5}, {1: -1}, {1: PRIME}, {PRIME: 3}, {-1: 3}])
def test_what_are_no_shares_are_refused(shares: dict[int, int]) -> None:
    with pytest.raises(SecureSumError, match="share"):
        combined(shares)


def test_a_wrong_share_gives_other_bytes_or_is_refused() -> None:
    shares = split(SECRET, 3, range(1, 4))
    shares[2] = int.from_bytes(os.urandom(60), "big")
    with pytest.raises(SecureSumError, match="share"):
        combined(shares)


def test_the_curve_goes_through_every_share() -> None:
    shares = split(SECRET, 3, range(1, 9))
    some = {point: shares[point] for point in (2, 5, 7)}
    assert {point: value_at(some, point) for point in shares} == shares
