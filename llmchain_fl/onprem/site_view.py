"""A site file as the command line, the checks and the evidence read it, which do not import the apps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from llmchain_fl.core.audit import AuditLog
from llmchain_fl.core.work import WorkSpec


class Settings(Protocol):
    """A group of settings, as a whole."""

    def model_dump(self) -> dict[str, Any]: ...


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


class Limits(Settings, Protocol):
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


class Secure(Settings, Protocol):
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
    """What of ``client.site.Site`` is read by rooms that do not import the apps."""

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
    def policy(self) -> str: ...
    @property
    def audit(self) -> AuditLog: ...
    @property
    def ledger_folder(self) -> Path: ...
    @property
    def anchor_file(self) -> Path: ...
    @property
    def identity_file(self) -> Path: ...
    def named(self, unit: str) -> bool: ...
    def check(self, work: WorkSpec) -> None: ...
