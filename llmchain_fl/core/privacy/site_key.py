"""The site's secret: 32 random bytes in a file of its own, and the keys that follow from it.

Who has it can test whether a person is in the register and can read and forge receipts, so it never leaves the site's
disk; nothing that leaves the site is a function of it except receipts, which look random without it. A copy of the
state folder (a backup) holds it too: keep backups as safe as the folder.

Keys for a purpose: HKDF-SHA256 (RFC 5869) without salt, 32 bytes, ``info`` = "llmchain_fl/" + purpose.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.durable import content, replace

BYTES = 32


def read_key(path: Path) -> bytes:
    """The site's secret.

    Raises:
        PrivacyError: it is gone or not one.
    """
    secret = content(path)
    if secret is None or len(secret) != BYTES:
        raise PrivacyError(
            f"the site's secret key {path} is {'gone' if secret is None else 'damaged'}",
            remedy="restore it from where the state folder was kept; without it the register of people is unreadable",
        )
    return secret


def make_key(path: Path) -> bytes:
    """The site's secret, made (0600, on the disk when this returns) if there is none."""
    if not path.exists():
        replace(path, os.urandom(BYTES))
    return read_key(path)


def digest_of(secret: bytes) -> str:
    """By which a changed key is recognised; tells nothing about the key."""
    return hashlib.sha256(b"llmchain_fl/site-key\n" + secret).hexdigest()


def derive(secret: bytes, purpose: str) -> bytes:
    """The key for one purpose: knowing it says nothing about another."""
    return HKDF(SHA256(), BYTES, salt=None, info=f"llmchain_fl/{purpose}".encode()).derive(secret)
