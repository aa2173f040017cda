"""The site's own policy: where its records are, what it allows, what it shares. Written by the data holder.

The server's wishes may only be stricter. It is a TOML file, named in the SuperNode's ``--node-config 'site="..."'``
(docs/on-flower.md shows one); its tables are the classes below, ``[limits]`` and ``[compute]`` those of ``limits.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
from pydantic import Field, PrivateAttr

from client.limits import PERSON, SiteCompute, SiteLimits, Unit
from llmchain_fl.core.audit import AuditLog
from llmchain_fl.core.data.source import path_of
from llmchain_fl.core.errors import ConfigError, PrivacyError
from llmchain_fl.core.plugins import Named
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.release import Ledger, Terms
from llmchain_fl.core.section import NAME, Section, faults_in
from llmchain_fl.core.toml_file import read_toml
from llmchain_fl.core.work import WorkSpec

if TYPE_CHECKING:
    from client.memory import Memory

__all__ = ["PERSON", "Site", "SiteApproved", "SiteCompute", "SiteData", "SiteLimits", "SiteSecure", "Unit", "read_site"]


MEMORY: Named[type[Memory]] = Named({"memory": "client.memory:Memory"})
"""What a site keeps of a run for itself, where the task says so."""
NO_LEDGER: Named[Callable[[], Ledger]] = Named({"ledger": "llmchain_fl.core.privacy.null_ledger:NullLedger"})
"""The ledger of a run without privacy."""


class SiteData(Section):
    """Where the records of a stage are; paths are relative to the site file."""

    name: Annotated[str, Field(pattern=NAME + "|^$")] = ""
    """Which data set this is, for its whole life: its groups in the ledger go by this name. Empty: the site's name."""
    train: str
    """Training records; `{stage}` stands for the name of the stage."""
    held_out: str = ""
    """Records for the site's own score; empty: none."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Which column of the file holds what: text, label, person, ...; `note.body` is a part of the column note."""
    encoding: Literal["", "utf-8", "windows-1252", "latin-1"] = ""
    """Of text files; empty: UTF-8, or windows-1252 where the header line of a CSV file is not UTF-8."""
    delimiter: Literal["", ",", ";", "\t", "|"] = ""
    """Of CSV files; empty: the one that the header line has most of."""
    one_record_per_person: bool = False
    """The data holder declares that no person has two records; then no column needs to name the person."""


class SiteSecure(Section):
    """With whom, and on which terms, this site lets its numbers into a sum that the server opens."""

    only: bool = False
    """Take part in rounds only whose updates are masked."""
    peers: dict[str, str] = Field(default_factory=dict)
    """The other sites, by name, each with its identity (`ed25519:...`), given hand to hand and not by the server."""
    identity: str = ""
    """File of this site's private key; made when missing. Empty: `identity.key` in `state`."""
    min_peers: Annotated[int, Field(ge=2)] = 3
    """Fewest sites of a sum, this one among them."""
    counted_peers: Annotated[int, Field(ge=0)] = 0
    """How many of the others are trusted never to tell their noise to the server: so much of it the ledger counts. 0:
    only this site's own share. The server together with all others but so many learns no more than epsilon says."""


class SiteApproved(Section):
    """Whose runs the site's own executor takes part in (`llmchain-fl site up`), by the bundle that the server sends."""

    bundles: list[Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]] = Field(default_factory=list)
    """SHA-256 of each bundle that was read and found right; empty: none."""
    any: bool = False
    """Take part whatever the bundle is; no line of it is executed at this site either way."""


class Site(Section):
    """One data holder."""

    name: Annotated[str, Field(pattern=NAME)]
    """Name of the site; the same for its whole life."""
    state: str = "state"
    """Folder for what must survive: the privacy ledger and sealed updates."""
    anchor: str = ""
    """Small file that shows when `state` was set back to an older copy; best on another disk. Empty: beside `state`."""
    data: SiteData
    limits: SiteLimits = SiteLimits()
    compute: SiteCompute = SiteCompute()
    secure: SiteSecure = SiteSecure()
    approved: SiteApproved = SiteApproved()
    _policy: str = PrivateAttr("")

    @property
    def policy(self) -> str:
        """SHA-256 of the site file as it was read; of the settings, where a program has made them."""
        return self._policy or hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def written_as(self, file: bytes) -> Site:
        """The same site, known by its file."""
        site = self.model_copy()
        site._policy = hashlib.sha256(file).hexdigest()
        return site

    @property
    def audit(self) -> AuditLog:
        """What this site was asked, and what left it."""
        return AuditLog(Path(self.state) / f"{self.name}.audit", "site", self.name)

    def named(self, unit: str) -> bool:
        """Whether units are told apart by the names of persons."""
        return unit == PERSON and not self.data.one_record_per_person

    def check(self, work: WorkSpec) -> None:
        """Refuse work that the policy does not allow, with the reason; see ``client/check.py``."""
        from client.check import check_work

        check_work(self, work)

    def ledger(self, work: WorkSpec) -> Ledger:
        """The privacy ledger of the site, or one that records nothing for work without a plan."""
        return NO_LEDGER["ledger"]() if work.plan is None else self.open_ledger(work.plan.unit)

    def verify(self) -> None:
        """Verify the ledger before anything of a message is looked at, where the site's file says by what it counts.

        Raises:
            PrivacyError: the ledger cannot be trusted; the site does nothing then.
        """
        if self.limits.require_privacy and len(self.limits.units) == 1:
            self.open_ledger(self.limits.units[0])

    def open_ledger(self, unit: str) -> FileLedger:
        """The ledger on this site's disk, verified.

        Raises:
            PrivacyError: it cannot be trusted, or counts by another unit.
        """
        others = {log.parent for log in Path(self.state).glob("*/events.jsonl")} - {self.ledger_folder}
        if others:
            raise PrivacyError(
                f"the state folder holds another ledger, {min(others).name}: another name is no new budget",
                remedy="give the site its name back; a ledger of 0.1 stays where it is, and the site gets a new state "
                "folder and limits.epsilon lower by what the old ledger has spent",
            )
        terms = Terms(self.name, unit, self.limits.delta, "pld", self.limits.epsilon)
        return FileLedger(self.ledger_folder, self.anchor_file, terms)

    def memory(self, run: str, purpose: str = "personal") -> Memory:
        """What this site keeps for itself of the run ``run``."""
        return MEMORY["memory"](Path(self.state), run, purpose)

    @property
    def data_set(self) -> str:
        """Name of the data set, in the groups of the ledger."""
        return self.data.name or self.name

    @property
    def ledger_folder(self) -> Path:
        """Where the site's ledger is."""
        return Path(self.state) / self.name

    @property
    def listed(self) -> int:
        """How many sites may be in one sum with this one, itself included."""
        return len({*self.secure.peers, self.name})

    @property
    def identity_file(self) -> Path:
        """Where the site's private key of secure sums is."""
        return Path(self.secure.identity) if self.secure.identity else Path(self.state) / "identity.key"

    @property
    def anchor_file(self) -> Path:
        """The file by which a ledger that was set back is found out."""
        state = Path(os.path.abspath(self.state))
        return Path(self.anchor) if self.anchor else state.with_name(f"{state.name}.{self.name}.anchor")


def memory_file(folder: Path, run: str, purpose: str) -> Path:
    """Where a site keeps what ``purpose`` of ``run`` needs; named by a hash, for ``run`` is the server's text."""
    key = json.dumps([run, purpose]).encode()
    return folder / ".memory" / f"{hashlib.sha256(key).hexdigest()[:32]}.safetensors"


def read_site(path: Path) -> Site:
    """Read a site file; relative paths in it are taken from its folder.

    Raises:
        ConfigError: missing, not TOML, or faults in it (all at once).
    """
    tree: dict[str, Any] = read_toml(path, "site file", remedy="write one; docs/on-flower.md shows it")
    try:
        site = Site.model_validate(tree)
    except pydantic.ValidationError as error:
        parts = (SiteData, SiteLimits, SiteCompute, SiteSecure, SiteApproved, Site)
        raise ConfigError(faults_in(error, parts)) from None
    base = path.parent

    def here(spec: str) -> str:
        return spec if not spec or path_of(spec) is None else str(base / spec)

    data = site.data.model_copy(update={"train": here(site.data.train), "held_out": here(site.data.held_out)})
    secure = site.secure.model_copy(update={"identity": here(site.secure.identity)})
    moved = {"data": data, "secure": secure, "state": here(site.state), "anchor": here(site.anchor)}
    return site.model_copy(update=moved).written_as(path.read_bytes())
