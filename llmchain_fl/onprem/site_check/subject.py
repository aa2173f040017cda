"""What is checked: a site, its kit where there is one, and what the federation plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.onprem.kit import SiteKit


class Data(Protocol):
    """Of a site file's ``[data]``."""

    @property
    def train(self) -> str: ...
    @property
    def columns(self) -> dict[str, str]: ...
    @property
    def encoding(self) -> Literal["", "utf-8", "windows-1252", "latin-1"]: ...
    @property
    def delimiter(self) -> Literal["", ",", ";", "\t", "|"]: ...
    @property
    def one_record_per_person(self) -> bool: ...


class Limits(Protocol):
    """Of a site file's ``[limits]``."""

    @property
    def epsilon(self) -> float: ...
    @property
    def delta(self) -> float: ...
    @property
    def units(self) -> Sequence[str]: ...
    @property
    def plugins(self) -> list[str]: ...
    @property
    def memory_mb(self) -> int: ...


class Secure(Protocol):
    """Of a site file's ``[secure]``."""

    @property
    def peers(self) -> dict[str, str]: ...
    @property
    def counted_peers(self) -> int: ...


class Approved(Protocol):
    """Of a site file's ``[approved]``."""

    @property
    def bundles(self) -> Sequence[str]: ...


class Site(Protocol):
    """What of ``client.site.Site`` is read here (this room does not import the apps)."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def data(self) -> Data: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def secure(self) -> Secure: ...
    @property
    def approved(self) -> Approved: ...
    @property
    def ledger_folder(self) -> Path: ...
    @property
    def anchor_file(self) -> Path: ...
    @property
    def identity_file(self) -> Path: ...
    def named(self, unit: str) -> bool: ...
    def check(self, work: WorkSpec) -> None: ...


@dataclass(frozen=True)
class Plan:
    """What a run will ask of this site."""

    config: RunConfig
    labels: Mapping[str, str]
    """Public label -> text; none for a task without labels."""
    stages: Mapping[str, Sequence[str]]
    """Stage -> the labels that it keeps; empty: all."""


@dataclass(frozen=True)
class Subject:
    """One site."""

    site: Site
    folder: Path
    """Where the site file is."""
    app: Path
    """The folder of the apps, whose files would run."""
    now: datetime
    kit: SiteKit | None = None
    plan: Plan | None = None
