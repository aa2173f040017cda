"""From the members' shares to their secrets, and from the secrets to the sum without masks."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llmchain_fl.core.errors import SecureSumError
from llmchain_fl.core.secure.directory import Directory, Entry
from llmchain_fl.core.secure.exchange import mask_key, mask_sign, public_of
from llmchain_fl.core.secure.shamir import combined, value_at
from llmchain_fl.core.secure.stream import add_stream
from llmchain_fl.core.secure.words import Words

TRIES = 500
"""Sets of shares of a secret that are tried at most, where the first one does not fit."""
Shares = Mapping[int, int]
"""Point of a holder -> its share of one secret."""


@dataclass(frozen=True)
class NotOpened:
    """Why there is no sum.

    ===========  ===============================================================================================
    reason       sites
    ===========  ===============================================================================================
    ``few``      whose secrets too few have given shares of
    ``owner``    who dealt shares that lie on one curve, of another secret than its keys tell
    ``misfit``   of a secret whose shares do not fit: its owner, and who gave them; at least one of these lies
    ===========  ===============================================================================================
    """

    reason: Literal["few", "owner", "misfit"]
    sites: tuple[str, ...]


@dataclass(frozen=True)
class Secrets:
    """Owner -> its self seed or its mask key; who gave shares that do not fit, and that others made good."""

    known: Mapping[str, bytes]
    liars: frozenset[str]


def open_secrets(
    directory: Directory, survivors: Sequence[str], shares: Mapping[str, Shares], thresholds: Mapping[str, int]
) -> Secrets | NotOpened:
    """The self seed of each survivor and the mask key of each other, as their owners' signed keys tell them.

    ==========================================  ==========================================================
    shares of a secret                          result
    ==========================================  ==========================================================
    fewer than the threshold                    ``few``
    a threshold of right ones                   the secret; ``liars``, if a wrong one was among the first
    of another secret, more than the threshold  ``owner``
    wrong ones, and too few right ones          ``misfit``
    so many wrong ones that no try finds        ``misfit``
    ==========================================  ==========================================================

    Args:
        directory: the members and their keys.
        survivors: who uploaded.
        shares: those of everybody who gave shares.
        thresholds: how many a secret takes, by owner.
    """
    few = sorted(owner for owner, given in shares.items() if len(given) < thresholds[owner])
    if few:
        return NotOpened("few", tuple(few))
    known: dict[str, bytes] = {}
    liars: set[str] = set()
    for owner, given in shares.items():
        entry, alive, threshold = directory.entries[owner], owner in survivors, thresholds[owner]
        first = _first(given, threshold)
        if _fits(first, entry, alive):
            known[owner] = combined(first)
            continue
        if len(given) > threshold and not _off_curve(given, first):
            return NotOpened("owner", (owner,))
        right = next((some for some in _others(given, threshold) if _fits(some, entry, alive)), None)
        if right is None:
            return NotOpened("misfit", tuple(sorted({owner, *(directory.names[point - 1] for point in given)})))
        known[owner] = combined(right)
        liars |= {directory.names[point - 1] for point in _off_curve(given, right)}
    return Secrets(known, frozenset(liars))


def take_masks_away(total: Words, directory: Directory, survivors: Sequence[str], secrets: Secrets) -> None:
    """From the sum of uploads, modulo 2**32, in place: the survivors' self masks, the pair masks with the others."""
    for owner, secret in secrets.known.items():
        if owner in survivors:
            add_stream(total, secret, -1)
            continue
        for other in set(directory.neighbours(owner)) & set(survivors):
            key = mask_key(secret, directory.entries[other].mask, directory.digest, owner, other)
            add_stream(total, key, -mask_sign(other, owner))


def _first(given: Shares, threshold: int) -> Shares:
    return {point: given[point] for point in sorted(given)[:threshold]}


def _others(given: Shares, threshold: int) -> Iterator[Shares]:
    """Sets of ``threshold`` shares by chance, the same ones each time."""
    points, draw = sorted(given), random.Random(0)
    for _ in range(TRIES if len(points) > threshold else 0):
        yield {point: given[point] for point in draw.sample(points, threshold)}


def _fits(shares: Shares, entry: Entry, alive: bool) -> bool:
    try:
        secret = combined(shares)
    except SecureSumError:
        return False
    return hashlib.sha256(secret).hexdigest() == entry.self_digest if alive else public_of(secret) == entry.mask


def _off_curve(given: Shares, some: Shares) -> set[int]:
    """Whose shares do not lie on the curve through ``some``."""
    return {point for point, share in given.items() if point not in some and value_at(some, point) != share}
