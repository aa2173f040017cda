"""A secret in shares: any ``threshold`` of them give it back, fewer say nothing.

Shamir 1979, CACM 22(11): a polynomial f of degree threshold - 1 over the integers modulo p, f(0) = the secret, all
other coefficients uniform; the share of point x is f(x). Any threshold points determine f (Lagrange); for fewer, every
secret is equally likely. p = 2**521 - 1 is prime and above any 32 bytes.

Not promised: nothing tells a wrong share from a right one; whoever combines must know the secret's digest or public
key. The arithmetic takes a time that depends on the numbers: it is done at the dealer, and where secrets are opened.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from llmchain_fl.core.secure.checks import refuse

PRIME = 2**521 - 1
SECRET, SHARE = 32, 66
"""Bytes of a secret and of a share."""


def split(secret: bytes, threshold: int, points: Sequence[int]) -> dict[int, int]:
    """Point -> share.

    =============================================  =================================
    case                                           result
    =============================================  =================================
    threshold = 1                                  every share is the secret
    threshold above the number of points, or < 1   refused: threshold
    point 0, a point twice or outside the field    refused: threshold
    not 32 bytes                                   refused: form
    =============================================  =================================

    Raises:
        SecureSumError: see the table.
    """
    if len(secret) != SECRET:
        raise refuse("form", f"a secret of {len(secret)} bytes")
    if not 1 <= threshold <= len(set(points)) or len(set(points)) < len(points) or not _inside(points):
        raise refuse("threshold", f"{threshold} of {len(points)} shares cannot be dealt")
    polynomial = [secrets.randbelow(PRIME) for _ in range(threshold - 1)] + [int.from_bytes(secret, "big")]
    return {point: _horner(polynomial, point) for point in points}


def combined(shares: Mapping[int, int]) -> bytes:
    """The secret of exactly threshold shares, or of more that fit together.

    =================================  ======================================
    case                               result
    =================================  ======================================
    too few shares, or a wrong one     other bytes, or refused: share
    no share, one outside the field    refused: share
    =================================  ======================================

    Raises:
        SecureSumError: see the table.
    """
    if not shares or not _inside(list(shares)) or not all(0 <= share < PRIME for share in shares.values()):
        raise refuse("share", "these are no shares of a secret")
    secret = value_at(shares, 0)
    if secret >> (8 * SECRET):
        raise refuse("share", "the shares do not fit together")
    return secret.to_bytes(SECRET, "big")


def value_at(shares: Mapping[int, int], point: int) -> int:
    """f(point) = sum over i of y_i prod over j != i of (point - x_j) / (x_i - x_j), modulo p."""
    total = 0
    for mine, share in shares.items():
        above = below = 1
        for other in shares:
            if other != mine:
                above, below = above * (point - other) % PRIME, below * (mine - other) % PRIME
        total += share * above * pow(below, -1, PRIME)
    return total % PRIME


def _horner(polynomial: Sequence[int], point: int) -> int:
    value = 0
    for coefficient in polynomial:
        value = (value * point + coefficient) % PRIME
    return value


def _inside(points: Sequence[int]) -> bool:
    return all(0 < point < PRIME for point in points)
