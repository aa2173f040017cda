"""What a member derives from one seed a round, and what two members derive from each other's keys.

One seed of 32 random bytes a round; from it, by HKDF-SHA256 (``privacy/site_key.py``) and so independent of each other:

* ``mask``: an X25519 key (RFC 7748); each pair's mask comes from it, and it is shared out, for the case that its owner
  goes. Who opens it can take the pairs' masks away, and nothing else.
* ``self``: the seed of the mask that its owner adds for itself alone, shared out for the case that its owner stays.
* ``box``: an X25519 key for sealing shares; never shared out. (With one key for both, whoever opens the mask key of a
  member that is gone reads all the shares that were sealed for it.)
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from llmchain_fl.core.privacy.site_key import derive
from llmchain_fl.core.secure.checks import refuse
from llmchain_fl.core.secure.identity import Body, canonical, unhex
from llmchain_fl.core.secure.shamir import SHARE

NONCE, TAG = 12, 16
PAIR = 2 * SHARE
"""Bytes of the two shares of one owner that one holder has: of the self seed, then of the mask key."""


@dataclass(frozen=True)
class Secrets:
    """The three secrets of a round, 32 bytes each."""

    mask: bytes
    box: bytes
    self_seed: bytes


def secrets_of(seed: bytes) -> Secrets:
    """What follows from a round's seed."""
    return Secrets(*(derive(seed, f"secure-sum/{name}") for name in ("mask", "box", "self")))


def public_of(private: bytes) -> bytes:
    """The public half of an X25519 key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def mask_key(private: bytes, public: bytes, directory: str, mine: str, other: str) -> bytes:
    """The key of the mask between two members; both derive the same.

    HKDF(X25519(private, public), "secure-sum/mask [directory, lower name, higher name]"); the digest of the directory
    stands for run, round and everybody's keys.

    Raises:
        SecureSumError: form; the public key is of low order (RFC 7748, 6.1).
    """
    return _agreed(private, public, ["mask", directory, *sorted((mine, other))])


def mask_sign(mine: str, other: str) -> int:
    """Which of the two adds their mask, and which takes it away: 1 for the lower name."""
    return 1 if mine < other else -1


def seal(private: bytes, public: bytes, header: Body, plain: bytes) -> bytes:
    """``plain`` for the member with the box key ``public``: a random nonce, then AES-256-GCM (NIST SP 800-38D).

    The key is one for each round and direction; ``header`` (everything that the message says in the clear) is
    authenticated with it.
    """
    nonce = os.urandom(NONCE)
    return nonce + AESGCM(_box_key(private, public, header)).encrypt(nonce, plain, canonical(header))


def unseal(private: bytes, public: bytes, header: Body, sealed: bytes) -> bytes:
    """The inverse, at the receiver.

    Raises:
        SecureSumError: share; it was altered, or sealed for somebody else, another round, directory or plan.
    """
    try:
        return AESGCM(_box_key(private, public, header)).decrypt(sealed[:NONCE], sealed[NONCE:], canonical(header))
    except InvalidTag:
        raise refuse("share", f"the share of {header['site']!r} does not open") from None


def two_shares(plain: bytes) -> tuple[int, int]:
    """(share of the self seed, share of the mask key)."""
    return int.from_bytes(plain[:SHARE], "big"), int.from_bytes(plain[SHARE:], "big")


def sealed_bytes(text: str) -> bytes:
    """A sealed pair of shares from its digits.

    Raises:
        SecureSumError: form.
    """
    return unhex(text, NONCE + PAIR + TAG)


def _box_key(private: bytes, public: bytes, header: Body) -> bytes:
    return _agreed(private, public, ["box", header["directory"], header["site"], header["to"]])


def _agreed(private: bytes, public: bytes, purpose: list[str | int]) -> bytes:
    try:
        agreed = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise refuse("form", "a public key of the directory is none") from None
    return derive(agreed, "secure-sum/" + canonical(purpose).decode())
