"""Ed25519 over the SHA-256 of a canonical value: the identities and the messages of ``core/secure/identity.py``.

A signature is a message of a kind of its own (``hub adapter``, ``hub index``, ``promotion``), as the evidence has: the
kind is signed with it, so that none of them can stand for another.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature

from llmchain_fl.core.errors import SecureSumError
from llmchain_fl.core.secure.identity import SIGNATURE as SIZE
from llmchain_fl.core.secure.identity import Identity, canonical, public_key, unhex
from llmchain_fl.hub.refused import refuse
from llmchain_fl.hub.strict_json import parse_canonical

ADAPTER, INDEX, VERDICT = "hub adapter", "hub index", "promotion"
MOST = 4096
_DOMAIN = b"llmchain_fl secure sum 1\n"
"""Of every message that an identity signs."""


def sha256(data: bytes) -> str:
    """Hex digits."""
    return hashlib.sha256(data).hexdigest()


def signature(identity: Identity, kind: str, data: bytes) -> bytes:
    """What stands beside ``data``; the same data gives the same bytes."""
    return identity.signed(kind, {"sha256": sha256(data)})


def check_signature(message: bytes, kind: str, data: bytes, public: str) -> None:
    """Refuse ``data`` unless the identity ``public`` signed it as ``kind``.

    Raises:
        HubError: form, size: no such message; signature: not of this key, of another kind, over something else.
    """
    tree = parse_canonical(message, "the signature", MOST)
    body = {"sha256": sha256(data)}
    if set(tree) != {"kind", "body", "signature"} or tree["kind"] != kind or tree["body"] != body:
        raise refuse("signature", f"this is no signature over this {kind}")
    try:
        signed = unhex(tree["signature"], SIZE)
        public_key(public).verify(signed, _DOMAIN + kind.encode() + b"\n" + canonical(body))
        return
    except (InvalidSignature, SecureSumError):
        pass
    raise refuse("signature", f"this {kind} is not signed by {public[:24]}...")


def is_public(text: object) -> bool:
    """Whether ``text`` is the public half of an identity."""
    try:
        public_key(text if isinstance(text, str) else "")
    except (SecureSumError, ValueError):
        return False
    return True
