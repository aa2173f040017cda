"""``hub.json``: what a publisher signs about one version of an adapter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from llmchain_fl.core.secure.identity import canonical
from llmchain_fl.hub.layout import BOUNDS, GIB, HASH, MANIFEST, REQUIRED, SIGNED, is_name
from llmchain_fl.hub.refused import refuse
from llmchain_fl.hub.signing import is_public, sha256
from llmchain_fl.hub.strict_json import Tree, parse_canonical

FORMAT = 1
MOST_BYTES = 3 * GIB
"""Of one version."""
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_BASE = re.compile(r"sha256:[0-9a-f]{64}")
_FIELDS: Mapping[str, type] = {
    "format": int, "name": str, "version": int, "publisher": str, "issued": str, "made_by": str, "base": dict,
    "content": str, "parent": str, "files": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """One signed file."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """One version of an adapter.

    Attributes:
        name: of the adapter; ``version`` counts from 1.
        publisher: public key of whoever signed.
        issued: UTC.
        made_by: version of this project.
        base_name: by which others can find the base model; ``base_digest``: its content (``core/base_digest.py``).
        content: digest of the adapter's arrays.
        parent: address of the version that it was trained on from; "" for the first.
        files: every file but this one and the signature.
    """

    name: str
    version: int
    publisher: str
    issued: str
    made_by: str
    base_name: str
    base_digest: str
    content: str
    parent: str
    files: Mapping[str, Stored]

    def to_bytes(self) -> bytes:
        """Canonical JSON: what is hashed and signed."""
        rest = {name: value for name, value in vars(self).items() if name not in ("files", "base_name", "base_digest")}
        base = {"name": self.base_name, "digest": self.base_digest}
        return canonical({"format": FORMAT, **rest, "base": base, "files": {k: vars(v) for k, v in self.files.items()}})

    @property
    def address(self) -> str:
        """SHA-256 of the bytes: names this version, and all that is in it, for ever."""
        return sha256(self.to_bytes())

    @property
    def label(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"


def read_manifest(data: bytes) -> Manifest:
    """What ``to_bytes`` gave.

    ===============================================================  =========
    bytes                                                            refused
    ===============================================================  =========
    too long; not canonical; fields missing, more, of another type   size, form
    a name, key, hash or time that is none                           form
    a file that the layout does not know, such as ``../x``           name
    a file that every version has and this one lacks                 missing
    a file larger than its bound                                     size
    ===============================================================  =========

    Raises:
        HubError: see the table.
    """
    tree = parse_canonical(data, MANIFEST, SIGNED[MANIFEST])
    if {name: type(value) for name, value in tree.items()} != _FIELDS or tree["format"] != FORMAT:
        raise refuse("form", f"the fields of {MANIFEST} are others than those of format {FORMAT}")
    base = tree["base"]
    checks = [
        (is_name(tree["name"]), "name"),
        (1 <= tree["version"] < 2**31, "version"),
        (is_public(tree["publisher"]), "publisher"),
        (time_of(tree["issued"]) is not None, "issued"),
        (len(tree["made_by"]) <= 100 and tree["made_by"].isprintable(), "made_by"),
        (set(base) == {"name", "digest"} and all(isinstance(value, str) for value in base.values()), "base"),
        (HASH.fullmatch(tree["content"]), "content"),
        (tree["parent"] == "" or HASH.fullmatch(tree["parent"]), "parent"),
    ]
    wrong = [field for holds, field in checks if not holds]
    if not wrong and not (_BASE.fullmatch(base["digest"]) and 0 < len(base["name"]) <= 200 and _plain(base["name"])):
        wrong = ["base"]
    if wrong:
        raise refuse("form", f"{MANIFEST}: {', '.join(wrong)} is not what this project writes")
    plain = {name: tree[name] for name in _FIELDS if name not in ("format", "base", "files")}
    return Manifest(**plain, base_name=base["name"], base_digest=base["digest"], files=_files(tree["files"]))


def _files(entries: Tree) -> dict[str, Stored]:
    files = {}
    for name, entry in entries.items():
        if name not in BOUNDS:
            raise refuse("name", f"{name!r} is no file of an adapter")
        if not isinstance(entry, dict) or {k: type(v) for k, v in entry.items()} != {"sha256": str, "size": int}:
            raise refuse("form", f"{MANIFEST} says nothing sound of {name}")
        if not HASH.fullmatch(entry["sha256"]):
            raise refuse("form", f"{MANIFEST} has no hash of {name}")
        if not 0 <= entry["size"] <= BOUNDS[name]:
            raise refuse("size", f"{name} has {entry['size']:,} bytes, at most {BOUNDS[name]:,}")
        files[name] = Stored(entry["sha256"], entry["size"])
    if sum(one.size for one in files.values()) > MOST_BYTES:
        raise refuse("size", f"{MANIFEST} lists more than {MOST_BYTES:,} bytes")
    lacking = sorted(set(REQUIRED) - set(files))
    if lacking:
        raise refuse("missing", f"{MANIFEST} lists no {', '.join(lacking)}")
    return files


def _plain(name: str) -> bool:
    """A name by which others find the base: no path of a machine."""
    return name.isprintable() and not name.startswith(("/", "~", ".")) and "\\" not in name and ".." not in name


def time_of(text: str) -> datetime | None:
    """The time that a text of the form ``2026-11-30T12:00:00Z`` names."""
    try:
        time = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return time if time_text(time) == text else None


def time_text(time: datetime) -> str:
    """``time`` as a text, whole seconds, UTC."""
    return time.strftime(_TIME)
