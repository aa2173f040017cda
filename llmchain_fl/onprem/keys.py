"""A site's two keys, and the request by which it has the public halves entered without the private ones leaving it.

* The node key: ECDSA on P-384, an OpenSSH file, as Flower's SuperNode reads it. The SuperLink knows the site by it.
* The identity: Ed25519 (``llmchain_fl/core/secure/identity.py``). The other sites of a secure sum know it by that.

A request is one file of JSON: the site's name, both public halves, and a signature of each key over all three, so that
nobody has a key entered that is not theirs. It holds nothing secret. That it came from the site is not proved by it:
``fingerprint`` is short enough to be compared by telephone.

==============================================  ==========================
a request                                       outcome
==============================================  ==========================
as the site wrote it                            its ``Public``
a letter of name or key changed                 ConfigError, not signed
no JSON, fields missing or more, too long       ConfigError, no request
a node key on another curve, of another kind    ConfigError, no request
==============================================  ==========================
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from llmchain_fl.core.errors import ConfigError, SecureSumError
from llmchain_fl.core.regular_file import read_regular
from llmchain_fl.core.section import NAME
from llmchain_fl.core.secure.identity import SCHEME, canonical, public_key
from llmchain_fl.onprem.files import own_folder, taken, write_file, write_key

NODE_KEY, IDENTITY_KEY = "keys/node.key", "keys/identity.key"
"""Where they are in a kit."""
LONGEST = 1 << 14
_WORDS = b"llmchain_fl request 1\n"
_FIELDS = {"identity", "identity_signature", "name", "node_key", "node_signature"}


@dataclass(frozen=True)
class Public:
    """The public halves of a site's keys: an OpenSSH line without a comment, and ``ed25519:`` with 64 digits."""

    name: str
    node_key: str
    identity: str


def make_keys(folder: Path, name: str) -> Public:
    """Both keys of a new site in ``folder``; nothing is written where one of them is there already.

    Raises:
        ConfigError: one is.
    """
    node, own = ec.generate_private_key(ec.SECP384R1()), Ed25519PrivateKey.generate()
    for file in (folder / NODE_KEY, folder / IDENTITY_KEY):
        if file.exists():
            raise taken(file)
    own_folder((folder / NODE_KEY).parent)
    plain = serialization.NoEncryption()
    ssh = node.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, plain)
    write_key(folder / NODE_KEY, ssh)
    write_key(folder / IDENTITY_KEY, own.private_bytes_raw())
    return Public(name, _line(node.public_key()), SCHEME + own.public_key().public_bytes_raw().hex())


def read_keys(folder: Path, name: str) -> Public:
    """The public halves of the keys in ``folder``.

    Raises:
        ConfigError: one is gone, or is none.
    """
    node, identity = _private(folder)
    return Public(name, _line(node.public_key()), SCHEME + identity.public_key().public_bytes_raw().hex())


def write_request(folder: Path, name: str) -> Path:
    """The request of a site whose keys are in ``folder``, as ``NAME.request.json`` beside them.

    Raises:
        ConfigError: see ``read_keys``.
    """
    node, identity = _private(folder)
    public = read_keys(folder, name)
    signed = _signed(public)
    request = {
        **vars(public),
        "node_signature": node.sign(signed, ec.ECDSA(hashes.SHA256())).hex(),
        "identity_signature": identity.sign(signed).hex(),
    }
    file = folder / f"{name}.request.json"
    write_file(file, canonical(request) + b"\n")
    return file


def read_request(path: Path) -> Public:
    """A request that somebody sent.

    Raises:
        ConfigError: see the table of the module.
    """
    try:
        tree = json.loads(read_regular(path, LONGEST))
    except (OSError, ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict) or set(tree) != _FIELDS or not all(isinstance(part, str) for part in tree.values()):
        raise _no_request(path)
    public = Public(tree["name"], tree["node_key"], tree["identity"])
    if not re.fullmatch(NAME, public.name):
        raise _no_request(path)
    try:
        node, identity = node_public(public.node_key), public_key(public.identity)
        signatures = bytes.fromhex(tree["node_signature"]), bytes.fromhex(tree["identity_signature"])
        node.verify(signatures[0], _signed(public), ec.ECDSA(hashes.SHA256()))
        identity.verify(signatures[1], _signed(public))
    except InvalidSignature:
        raise ConfigError(
            [f"{path}: a key has not signed this request"], remedy="have the site send the file that it made once more"
        ) from None
    except (ValueError, SecureSumError):
        raise _no_request(path) from None
    return public


def _no_request(path: Path) -> ConfigError:
    remedy = "the site makes it: llmchain-fl site request NAME"
    return ConfigError([f"{path} is no request of a site"], remedy=remedy)


def node_public(line: str) -> ec.EllipticCurvePublicKey:
    """A node key from its OpenSSH line.

    Raises:
        ValueError: it is none, or not on P-384.
    """
    try:
        key = serialization.load_ssh_public_key(line.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError("no ECDSA key on P-384")
    return key


def node_pem(line: str) -> bytes:
    """A node key as the SuperLink's control interface takes it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return node_public(line).public_bytes(serialization.Encoding.PEM, form)


def fingerprint(identities: Mapping[str, str]) -> str:
    """Six groups of four digits for names and identities: the same at every site that was told the same of all."""
    digits = hashlib.sha256(canonical(dict(identities))).hexdigest()[:24]
    return "-".join(digits[place : place + 4] for place in range(0, len(digits), 4))


def _private(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, Ed25519PrivateKey]:
    file = folder / NODE_KEY
    try:
        node = serialization.load_ssh_private_key(file.read_bytes(), None)
        if not isinstance(node, ec.EllipticCurvePrivateKey):
            raise ValueError
        file = folder / IDENTITY_KEY
        identity = Ed25519PrivateKey.from_private_bytes(file.read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        state = "damaged" if file.exists() else "not there"
        raise ConfigError(
            [f"the key {file} is {state}"],
            remedy="put it back; or move away what is left of keys/ and make new ones: llmchain-fl site request NAME",
        ) from None
    return node, identity


def _line(public: ec.EllipticCurvePublicKey) -> str:
    return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _signed(public: Public) -> bytes:
    return _WORDS + canonical(vars(public))
