"""A hub folder: which files one version of an adapter may hold, how large each may be, and how they are read.

::

    adapter_config.json, adapter_model.safetensors    peft's own: PeftModel.from_pretrained(base, folder) reads them
    head.safetensors, slots.safetensors               where the adapter has them (adapter/files.py)
    work.json, manifest.json                          the adapter's own description and lineage
    card.json, README.md                              the card, as a value and as the Hugging Face hub shows it
    evidence/*.json, evidence/metrics.jsonl           what the card's numbers come from
    hub.json, SIGNATURE                               every file's hash, base, parent; signed by the publisher

The same folder is a repository of the Hugging Face hub: its README carries the front matter, the adapter's files stand
at the top. A hub is a folder, or the same folder behind any static HTTP server:

::

    index.json                  names, versions, addresses, revocations, serial, expiry; signed
    objects/ADDRESS/            one hub folder; ADDRESS is the SHA-256 of its hub.json

Nothing is opened through a link, and nothing is read beyond its bound.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from llmchain_fl.hub.refused import refuse

KIB, MIB, GIB = 2**10, 2**20, 2**30
MANIFEST, SIGNATURE = "hub.json", "SIGNATURE"
EVIDENCE = "evidence"
WEIGHTS, HEAD, SLOTS = "adapter_model.safetensors", "head.safetensors", "slots.safetensors"
CONFIG, WORK, LINEAGE = "adapter_config.json", "work.json", "manifest.json"
CARD, README = "card.json", "README.md"
METRICS, PRIVACY = f"{EVIDENCE}/metrics.jsonl", f"{EVIDENCE}/privacy.json"
SETTINGS, STATEMENT = f"{EVIDENCE}/settings.json", f"{EVIDENCE}/statement.json"
AUDIT, GATE = f"{EVIDENCE}/audit.json", f"{EVIDENCE}/gate.json"
SUITE = f"{EVIDENCE}/suite.json"

REQUIRED: Mapping[str, int] = MappingProxyType(
    {
        CONFIG: MIB,
        WEIGHTS: 2 * GIB,
        WORK: 8 * MIB,
        LINEAGE: 64 * KIB,
        CARD: 4 * MIB,
        README: 4 * MIB,
        SETTINGS: 4 * MIB,
        STATEMENT: 64 * KIB,
        METRICS: 64 * MIB,
        PRIVACY: 16 * MIB,
    }
)
OPTIONAL: Mapping[str, int] = MappingProxyType({HEAD: GIB, SLOTS: 64 * MIB, AUDIT: 4 * KIB, GATE: 4 * MIB, SUITE: MIB})
BOUNDS: Mapping[str, int] = MappingProxyType({**REQUIRED, **OPTIONAL})
"""Signed file -> most bytes."""
SIGNED: Mapping[str, int] = MappingProxyType({MANIFEST: 256 * KIB, SIGNATURE: 4 * KIB})
MOST_ENTRIES = 64
NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
"""Of an adapter: lower-case letters, digits, ``. _ -``; 1 to 64, no dot at either end."""
HASH = re.compile(r"[0-9a-f]{64}")


def is_name(text: str) -> bool:
    """Whether an adapter may be called so."""
    return bool(NAME.fullmatch(text)) and ".." not in text


def read_inside(root: Path, name: str, most: int) -> bytes:
    """The bytes of the regular file ``root/name``, no link on the way from ``root`` to it.

    ===========================================================  =========
    at ``name`` is                                               refused
    ===========================================================  =========
    an absolute path, ``..``, an empty part                      name
    nothing                                                      missing
    a link, a folder, a pipe, a device; a folder that is a link  link
    more than ``most`` bytes                                     size
    ===========================================================  =========

    Raises:
        HubError: see the table; transport where the disk fails.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
        raise refuse("name", f"{name!r} is no file of a hub folder")
    opened: list[int] = []
    try:
        opened.append(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
        for part in parts[:-1]:
            opened.append(os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
        opened.append(os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened[-1]))
        return _bounded(opened[-1], name, most)
    except FileNotFoundError:
        raise refuse("missing", f"there is no {name} in {root}") from None
    except OSError as error:
        linked = error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EMLINK)
        raise refuse("link" if linked else "transport", f"{name}: {error.strerror}") from None
    finally:
        for handle in reversed(opened):
            os.close(handle)


def _bounded(handle: int, name: str, most: int) -> bytes:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise refuse("link", f"{name} is no regular file")
    if status.st_size > most:
        raise refuse("size", f"{name} has {status.st_size:,} bytes, at most {most:,}")
    with os.fdopen(os.dup(handle), "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise refuse("size", f"{name} has more than {most:,} bytes")
    return data


def entries(root: Path) -> list[str]:
    """Every file below ``root``, sorted; a link or anything that is no plain file is refused, nothing is opened.

    Raises:
        HubError: link; extra: a folder other than ``evidence``; size: more than ``MOST_ENTRIES``; missing: no folder.
    """
    if root.is_symlink() or not root.is_dir():
        raise refuse("link" if root.is_symlink() else "missing", f"{root} is no folder")
    names: list[str] = []
    for place in (root, root / EVIDENCE):
        prefix = "" if place == root else f"{EVIDENCE}/"
        for one in os.scandir(place) if prefix == "" or place.is_dir() else ():
            if one.is_symlink() or not (one.is_file() or one.is_dir()):
                raise refuse("link", f"{prefix}{one.name} is no regular file")
            if one.is_dir() and (prefix or one.name != EVIDENCE):
                raise refuse("extra", f"{prefix}{one.name}/ is no folder of an adapter")
            names += [] if one.is_dir() else [f"{prefix}{one.name}"]
            if len(names) > MOST_ENTRIES:
                raise refuse("size", f"more than {MOST_ENTRIES} files")
    return sorted(names)
