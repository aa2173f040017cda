"""Pull one version: index, manifest and signature first, then the files that were signed, then every check.

Nothing stands at the target before all of it holds. What is not signed is never fetched, so that a repository of the
Hugging Face hub, with files of its own beside ours, is a source as well.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.hub import layout
from llmchain_fl.hub.door import VerifiedAdapter, signed_manifest, verified
from llmchain_fl.hub.index import FILE, MOST, Index, accepted
from llmchain_fl.hub.manifest import Manifest
from llmchain_fl.hub.publish import OBJECTS
from llmchain_fl.hub.recompute import check_card
from llmchain_fl.hub.refused import HubError, refuse
from llmchain_fl.hub.signing import sha256
from llmchain_fl.hub.source import Read, is_address, source
from llmchain_fl.hub.trust import Trust, read_trust, remember

Fits = Callable[[Manifest, Trust], None]
"""Refuses a manifest that is not the one asked for."""


@dataclass(frozen=True)
class Wanted:
    """``name@version``; version 0: the newest; name "": whatever a lone folder holds."""

    name: str = ""
    version: int = 0


def wanted(text: str) -> Wanted:
    """What ``bank@3`` or ``bank`` asks for.

    Raises:
        ConfigError: it is neither.
    """
    name, at, number = text.partition("@")
    if (name and not layout.is_name(name)) or (at and not (number.isascii() and number.isdecimal() and int(number))):
        raise ConfigError([f"{text!r} is no adapter"], remedy="give NAME or NAME@VERSION: llmchain-fl hub list HUB")
    return Wanted(name, int(number) if at else 0)


def fresh_index(read: Read, home: Path, now: datetime, publisher: str = "") -> Index:
    """The hub's index, accepted and remembered. ``publisher``: whose it must be; "" for anybody who is trusted.

    Raises:
        HubError: see ``index.accepted``; publisher: it is another's.
    """
    trust = read_trust(home)
    index, seen = accepted(read(FILE, MOST), trust, now)
    _check_publisher(index.publisher, publisher, trust)
    remember(home, index.publisher, seen)
    return index


def _check_publisher(public: str, name: str, trust: Trust) -> None:
    if name and trust.publishers.get(name) != public:
        raise refuse("publisher", f"this is of {trust.name_of(public)}, not of {name}")


def pull(place: str, choice: Wanted, out: Path, home: Path, now: datetime, publisher: str = "") -> VerifiedAdapter:
    """Fetch, verify, keep.

    ==================================================================  ==============================
    source                                                              then
    ==================================================================  ==============================
    has an ``index.json``                                               a hub: name and version by it
    a folder with a ``hub.json`` alone (a clone from the Hugging Face   that one version
    hub)
    an address without an ``index.json``                                refused: nothing says how old it is
    an adapter of another publisher, name or version than the index     refused: publisher, replay
    says
    a lone folder of a version before one that was seen                 refused: replay
    ==================================================================  ==============================

    Args:
        place: a folder, or an address.
        choice: what to fetch.
        out: a folder that is not there yet.
        home: keys, trusted publishers, what was seen.
        now: UTC.
        publisher: under which name here whoever signed must be trusted; "" for any.

    Raises:
        ConfigError: ``out`` is there, or no name is given to a hub.
        HubError: see ``refused.py``.
    """
    if out.exists() or out.is_symlink():
        raise ConfigError([f"{out} is there already"], remedy="name another folder, or move it away")
    read = source(place)
    try:
        index: Index | None = fresh_index(read, home, now, publisher)
    except HubError as error:
        if error.check != "missing" or is_address(place):
            raise
        index = None
    if index is None:

        def lone(manifest: Manifest, trust: Trust) -> None:
            _check_publisher(manifest.publisher, publisher, trust)
            _check_lone(manifest, choice, trust)

        return _fetched(read, "", out, read_trust(home), lone)
    if not choice.name:
        raise ConfigError(["a hub holds many adapters: give a name"], remedy=f"see `llmchain-fl hub list {place}`")
    address = index.address(choice.name, choice.version)

    def fits(manifest: Manifest, trust: Trust) -> None:
        if manifest.publisher != index.publisher:
            raise refuse("publisher", f"{manifest.label} is of another publisher than the index")
        listed = index.adapters[choice.name].get(manifest.version) if manifest.name == choice.name else None
        if manifest.address != address or listed != address:
            raise refuse("hash", f"what stands at the address of {choice.name} is something else")

    return _fetched(read, f"{OBJECTS}/{address}/", out, read_trust(home), fits)


def _check_lone(manifest: Manifest, choice: Wanted, trust: Trust) -> None:
    if choice.name and choice.name != manifest.name:
        raise refuse("missing", f"this folder holds {manifest.label}")
    if choice.version and choice.version != manifest.version:
        raise refuse("missing", f"this folder holds {manifest.label}")
    newest = trust.seen_of(manifest.publisher).versions.get(manifest.name, 0)
    if manifest.version < newest and not choice.version:
        raise refuse("replay", f"this folder holds {manifest.label}; version {newest} was seen")


def _fetched(read: Read, prefix: str, out: Path, trust: Trust, fits: Fits) -> VerifiedAdapter:
    data = read(prefix + layout.MANIFEST, layout.SIGNED[layout.MANIFEST])
    message = read(prefix + layout.SIGNATURE, layout.SIGNED[layout.SIGNATURE])
    manifest, _ = signed_manifest(data, message, trust)
    fits(manifest, trust)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{os.getpid()}.pull")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        (draft / layout.EVIDENCE).mkdir(parents=True)
        (draft / layout.MANIFEST).write_bytes(data)
        (draft / layout.SIGNATURE).write_bytes(message)
        for name, stored in manifest.files.items():
            content = read(prefix + name, stored.size)
            if sha256(content) != stored.sha256:
                raise refuse("hash", f"{name} is not the file that was signed")
            (draft / name).write_bytes(content)
        check_card(verified(draft, trust))
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return verified(out, trust)
