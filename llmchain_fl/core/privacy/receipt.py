"""A site's sealed note to itself, kept by the server: "this is how far my ledger had come when I sent you this".

A backup restored over log and anchor together looks consistent at the site. The server, though, hands back the last
receipt it got, and that one names a head that the restored log does not contain.

    receipt = base64url(nonce || AES-256-GCM_k(nonce, 0x01 || seq || head || SHA-256(last sealed key or nothing)))

with k = HKDF(site's secret, "receipt"), a fresh random 12-byte nonce, seq as 8 bytes big-endian and head as 32 bytes
(NIST SP 800-38D; random nonces are good for 2^32 receipts). Always CHARACTERS long. Without k it is random text of a
constant length: it tells neither how many entries there are nor whether anything changed since the last one.

Not promised: nothing against a server that hands back an older receipt, or none; it can hide a rollback that way, but
gains only what the site lost by itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.site_key import derive

_NONCE, _LABEL, _VERSION = 12, b"llmchain_fl/receipt", b"\x01"
CHARACTERS = (_NONCE + 1 + 8 + 32 + 32 + 16 + 2) // 3 * 4
"""Length of every receipt."""


@dataclass(frozen=True)
class Receipt:
    """What a receipt says to the site that wrote it."""

    seq: int
    head: str
    sealed: str
    """:func:`mark` of the release that was sealed last."""


def mark(key: str) -> str:
    """How a release is named in a receipt; "" stands for none yet."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest() if key else "0" * 64


def write_receipt(secret: bytes, receipt: Receipt) -> str:
    """``receipt`` as text that only the holder of ``secret`` can read or make."""
    plain = b"".join(
        [_VERSION, receipt.seq.to_bytes(8, "big"), bytes.fromhex(receipt.head), bytes.fromhex(receipt.sealed)]
    )
    nonce = os.urandom(_NONCE)
    hidden = AESGCM(derive(secret, "receipt")).encrypt(nonce, plain, _LABEL)
    return base64.urlsafe_b64encode(nonce + hidden).decode()


def read_receipt(secret: bytes, token: str) -> Receipt:
    """What :func:`write_receipt` was given.

    Raises:
        PrivacyError: it was written under another secret, or is no receipt at all.
    """
    try:
        raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        plain = AESGCM(derive(secret, "receipt")).decrypt(raw[:_NONCE], raw[_NONCE:], _LABEL)
    except (UnicodeEncodeError, binascii.Error, ValueError, InvalidTag):
        plain = b""
    if len(plain) != 73 or plain[:1] != _VERSION:
        raise PrivacyError(
            "the receipt that came back was not written with this site's secret key: the state folder was replaced",
            remedy="put the latest state folder back; nothing may be trained on these records without it",
        ) from None
    return Receipt(int.from_bytes(plain[1:9], "big"), plain[9:41].hex(), plain[41:].hex())
