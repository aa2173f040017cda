"""Who a site is to the other sites, and small messages that only it can have written.

A site's identity is an Ed25519 key (RFC 8032) in a file of its own; its public half, ``ed25519:`` and 64 hex digits,
stands in the site files of the others and is compared there, so that no server can put a key of its own between them.

A message is canonical JSON, ``{"body": {...}, "kind": "...", "signature": "..."}``: keys sorted, no blanks, ASCII, and
so one line. Signed is "llmchain_fl secure sum 1", the kind and the body, each on its line: a message of one kind is
never one of another kind, nor anything else that the key may sign.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from llmchain_fl.core.foreign import attempt
from llmchain_fl.core.privacy.durable import content, replace
from llmchain_fl.core.secure.checks import refuse

SCHEME = "ed25519:"
KEY, SIGNATURE = 32, 64
LONGEST = 1 << 16
"""Bytes of the longest message."""

_PLACE: Mapping[str, type] = {"run": str, "round": int, "site": str}
_TERMS: Mapping[str, type] = {"threshold": int, "quorum": int, "floor": int}
FIELDS: Mapping[str, Mapping[str, type]] = {
    "key": {**_PLACE, "identity": str, "mask": str, "box": str, "self": str},
    "share": {**_PLACE, **dict.fromkeys(("to", "directory", "context", "sealed"), str), **_TERMS},
    "upload": {**_PLACE, "directory": str, "shared": str},
    "survivors": {**_PLACE, "directory": str, "shared": str, "survivors": str},
    "answer": {**_PLACE, "directory": str, "shared": str, "survivors": str, "shares": str},
}
"""Kind of message -> the fields of its body. Texts are hexadecimal but for ``run``, ``site``, ``to``, ``context``."""

Body = dict[str, str | int]


@dataclass(frozen=True)
class Signed:
    """A message that was read; :meth:`check` says whether it was signed."""

    kind: str
    body: Body
    signature: bytes

    def text(self, name: str) -> str:
        """A field that ``FIELDS`` says is a text."""
        return str(self.body[name])

    def whole(self, name: str) -> int:
        """A field that ``FIELDS`` says is a whole number."""
        return int(self.body[name])

    def check(self, public: str) -> None:
        """Refuse it unless the identity ``public`` signed it.

        Raises:
            SecureSumError: signature.
        """
        try:
            public_key(public).verify(self.signature, _signed_bytes(self.kind, self.body))
        except InvalidSignature:
            raise refuse("signature", f"a {self.kind} message of {self.text('site')!r} is not signed by it") from None


class Identity:
    """The private half; never shown."""

    def __init__(self, private: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.public = SCHEME + self._key.public_key().public_bytes_raw().hex()

    def signed(self, kind: str, body: Body) -> bytes:
        """``body`` as a message of ``kind``; the same body gives the same bytes."""
        signature = self._key.sign(_signed_bytes(kind, body)).hex()
        return canonical({"kind": kind, "body": body, "signature": signature})


def make_identity(path: Path) -> Identity:
    """The identity in the file ``path``, made there (0600, on the disk when this returns) if there is none."""
    if not path.exists():
        replace(path, Ed25519PrivateKey.generate().private_bytes_raw())
    return read_identity(path)


def read_identity(path: Path) -> Identity:
    """The identity in the file ``path``.

    Raises:
        SecureSumError: store; it is gone or not one.
    """
    private = content(path)
    if private is None or len(private) != KEY:
        raise refuse("store", f"the site's identity {path} is {'gone' if private is None else 'damaged'}")
    return Identity(private)


def read(message: bytes, kind: str) -> Signed:
    """A message of ``kind``, its signature not yet checked.

    ===========================================================  ==============
    bytes                                                        refused
    ===========================================================  ==============
    too long, no JSON, nested without end, not canonical         form
    another kind; a field missing, more, or of another type      form
    a name or a run without letters, or of more than 200         form
    ===========================================================  ==============

    Raises:
        SecureSumError: see the table.
    """
    record = attempt(lambda: json.loads(message)) if len(message) <= LONGEST else None
    if not isinstance(record, dict) or attempt(lambda: canonical(record)) != message:
        record = {}
    body = record.get("body")
    if set(record) != {"kind", "body", "signature"} or record["kind"] != kind or not isinstance(body, dict):
        raise refuse("form", f"this is no message of kind {kind}")
    if {name: type(value) for name, value in body.items()} != FIELDS[kind]:
        raise refuse("form", f"the fields of a message of kind {kind} are others")
    check_place(body["run"], body["round"], body["site"])
    return Signed(kind, body, unhex(record["signature"], SIGNATURE))


def check_place(run: str, number: int, site: str) -> None:
    """Refuse names that are empty or endless, and negative rounds.

    Raises:
        SecureSumError: form.
    """
    if not 0 < len(run) <= 200 or not 0 < len(site) <= 200 or not 0 <= number < 2**53:
        raise refuse("form", "a run and a site have a name of 1 to 200 letters, a round a number from 0")


def canonical(value: object) -> bytes:
    """The one way to write ``value`` as JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def digest(value: object) -> str:
    """Hex SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value)).hexdigest()


def unhex(text: object, size: int) -> bytes:
    """``size`` bytes of lower-case hexadecimal digits.

    Raises:
        SecureSumError: form.
    """
    data = attempt(lambda: bytes.fromhex(text)) if isinstance(text, str) and len(text) == 2 * size else None
    if data is None or data.hex() != text:
        raise refuse("form", f"these are not {size} bytes in hexadecimal digits")
    return data


def public_key(public: str) -> Ed25519PublicKey:
    """The public half of an identity, from its text.

    Raises:
        SecureSumError: form.
    """
    data = unhex(public.removeprefix(SCHEME) if public.startswith(SCHEME) else "", KEY)
    return Ed25519PublicKey.from_public_bytes(data)


def _signed_bytes(kind: str, body: Body) -> bytes:
    return b"llmchain_fl secure sum 1\n" + kind.encode() + b"\n" + canonical(body)
