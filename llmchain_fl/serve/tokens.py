"""Tokens: 256 random bits as text, of which only the SHA-256 is kept."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "lfl_"


def new_token() -> str:
    """256 random bits, as text."""
    return PREFIX + secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """``sha256:...``, as it stands in the serve file."""
    return f"sha256:{hashlib.sha256(token.encode('utf-8', 'surrogatepass')).hexdigest()}"
