"""Publish a run's adapter: a signed folder under its address, then a new index; taken back or renewed likewise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.atomic_file import atomic_write, write_json
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.base_model import KNOWN, locate
from llmchain_fl.core.errors import ConfigError, RunError
from llmchain_fl.core.secure.identity import Identity
from llmchain_fl.core.work import WorkSpec, inference
from llmchain_fl.hub import layout
from llmchain_fl.hub.card_build import build_card
from llmchain_fl.hub.card_page import page
from llmchain_fl.hub.card_sources import Named
from llmchain_fl.hub.door import verified
from llmchain_fl.hub.evidence import Statement, gathered
from llmchain_fl.hub.index import DAYS, FILE, MOST, Index, accepted, read_index
from llmchain_fl.hub.manifest import Manifest
from llmchain_fl.hub.recompute import check_card
from llmchain_fl.hub.sealing import MADE_BY, seal
from llmchain_fl.hub.trust import Trust, own_identity, read_trust, remember
from llmchain_fl.run_dir import RunDir

OBJECTS = "objects"


@dataclass(frozen=True)
class Offer:
    """What is to be published.

    Attributes:
        run: with a finished adapter.
        name: of the adapter.
        statement: what only the publisher can say.
        base: the base model's folder; "": where the run had it.
        base_name: by which others can find it; "": the run's name for it.
        gate: what ``privacy audit --json`` printed.
    """

    run: RunDir
    name: str
    statement: Statement
    base: str = ""
    base_name: str = ""
    gate: Path | None = None


def publish(hub: Path, home: Path, offer: Offer, days: int = DAYS) -> Manifest:
    """Put the adapter of a run into the hub as its next version; a crash leaves the old index, and so the old hub.

    Raises:
        ConfigError: no key in ``home``; the hub is another publisher's; the base model is not a folder here.
        RunError: the run has no adapter.
        HubError: what would be published is nothing that a puller takes.
    """
    identity = own_identity(home)
    hub.mkdir(parents=True, exist_ok=True)
    with _alone(hub):
        index = _own_index(hub, home, identity)
        held = index.adapters.get(offer.name, {})
        version = 1 + max(held, default=0)
        newest = index.newest(offer.name)
        draft = hub / OBJECTS / ".draft"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            manifest = write_folder(draft, offer, identity, version, held[newest] if newest else "")
            _move(draft, hub / OBJECTS / manifest.address)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _write(hub, home, index.with_version(manifest), identity, days)
    return manifest


def write_folder(folder: Path, offer: Offer, identity: Identity, version: int, parent: str) -> Manifest:
    """One signed folder, verified as a puller verifies it.

    Raises:
        as :func:`publish`.
    """
    adapter = offer.run.adapter
    if not (adapter / layout.WORK).is_file():
        raise RunError(f"{offer.run.path} has no adapter yet", remedy="finish a stage of the run first")
    work, _ = read_adapter(adapter)
    place = offer.base or work.base.path
    name = offer.base_name or _public_name(place)
    located = locate(place)
    if not located.local:
        remedy = "download it and give its folder with --base: a puller must be able to tell it from another"
        raise ConfigError([f"the base model {place} is no folder of this machine, so it has no digest"], remedy=remedy)
    (folder / layout.EVIDENCE).mkdir(parents=True)
    _copy(adapter, folder, work, place, name)
    files = gathered(offer.run, offer.statement, offer.gate)
    for file, data in files.items():
        (folder / file).write_bytes(data)
    digest = base_digest(Path(located.path))
    here = {file: (folder / file).read_bytes() for file in layout.entries(folder)}
    card = build_card(here, Named(offer.name, version, MADE_BY, name, digest, parent))
    (folder / layout.CARD).write_bytes(card.to_bytes())
    (folder / layout.README).write_bytes(page(card).encode())
    entries = {"name": offer.name, "version": version, "base_name": name, "base_digest": digest, "parent": parent}
    manifest = seal(folder, identity, **entries)  # type: ignore[arg-type]
    check_card(verified(folder, Trust({"self": identity.public})))
    return manifest


def revoke(hub: Path, home: Path, name: str, version: int, reason: str, days: int = DAYS) -> str:
    """Take a version back for ever; whoever reads the new index refuses it, also where it lies on a disk.

    Raises:
        ConfigError: no key, another publisher's hub, or no reason.
        HubError: missing, revoked: it is not in the index, or was taken back before.
    """
    identity = own_identity(home)
    if not 0 < len(reason) <= 300 or not reason.isprintable():
        raise ConfigError(["--reason is no printable text of 1 to 300 characters"], remedy="say in a line why")
    with _alone(hub):
        index = _own_index(hub, home, identity)
        address = index.address(name, version)
        _write(hub, home, replace(index, revoked={**index.revoked, address: reason}), identity, days)
    return address


def renew(hub: Path, home: Path, days: int = DAYS) -> None:
    """The same index with a new date and serial.

    Raises:
        ConfigError: no key, another publisher's hub.
    """
    identity = own_identity(home)
    with _alone(hub):
        _write(hub, home, _own_index(hub, home, identity), identity, days)


def _own_index(hub: Path, home: Path, identity: Identity) -> Index:
    """The hub's index, never below what this home has signed before."""
    seen = read_trust(home).seen_of(identity.public)
    file = hub / FILE
    if not file.exists():
        return Index(identity.public, seen.serial, "", "")
    index = read_index(layout.read_inside(hub, FILE, MOST))
    if index.publisher != identity.public:
        remedy = "publish into a folder of your own: one hub, one publisher"
        raise ConfigError([f"{hub} is the hub of another publisher"], remedy=remedy)
    return replace(index, serial=max(index.serial, seen.serial))


def _write(hub: Path, home: Path, index: Index, identity: Identity, days: int) -> None:
    now = datetime.now(UTC)
    data = index.signed(identity, now, days)
    _, seen = accepted(data, Trust({"self": identity.public}), now)
    remember(home, identity.public, seen)
    atomic_write(hub / FILE, data)


def _copy(adapter: Path, folder: Path, work: WorkSpec, place: str, name: str) -> None:
    """The adapter's own files, without a path of this machine in them."""
    for file in (layout.WEIGHTS, layout.HEAD, layout.SLOTS):
        if (adapter / file).is_file():
            shutil.copyfile(adapter / file, folder / file)
    named = place if place in KNOWN else name
    base = replace(work.base, path=named, revision="", device="auto")
    (folder / layout.WORK).write_text(replace(inference(work), base=base, threads=0).to_json(), encoding="utf-8")
    for file, key in ((layout.CONFIG, "base_model_name_or_path"), (layout.LINEAGE, "base")):
        fields = json.loads((adapter / file).read_text(encoding="utf-8"))
        write_json(folder / file, {**fields, key: name})


def _public_name(place: str) -> str:
    name = locate(place).public_name
    return Path(name).name if name == place and place not in KNOWN and Path(name).is_dir() else name


def _move(draft: Path, target: Path) -> None:
    if not target.exists():
        draft.rename(target)


@contextmanager
def _alone(hub: Path) -> Iterator[None]:
    """One publisher at a time.

    Raises:
        RunError: another process is at work.
    """
    lock = FileLock(hub / ".lock")
    try:
        lock.acquire(timeout=10)
    except (Timeout, OSError):
        raise RunError(f"another process is at work on {hub}", remedy="wait until it is done") from None
    try:
        yield
    finally:
        lock.release()
