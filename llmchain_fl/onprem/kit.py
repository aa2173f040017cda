"""``kit.toml``: what a kit says of the federation; read by ``site check``, ``site up`` and ``coordinator up``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import pydantic
from pydantic import Field

from llmchain_fl.config.write import table_to_toml
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.section import Section
from llmchain_fl.core.toml_file import read_toml
from llmchain_fl.onprem.federation import faults_of
from llmchain_fl.onprem.files import own_folder, write_file

KIT, SITE, AUTHORITY, SCENARIO, ROSTER = "kit.toml", "site.toml", "ca.crt", "scenario.toml", "roster.json"
SERVER_KEY, SERVER_CERTIFICATE, FLOWER = "server.key", "server.crt", "flower/config.toml"
SYSTEMD, CONTAINER, SWITCHES, README = "systemd", "Containerfile", "environment", "README.md"
"""Names within a kit."""


class SiteKit(Section):
    """Of a site."""

    format: Literal[1] = 1
    role: Literal["site"] = "site"
    federation: str
    name: str
    coordinator: str
    """HOST:PORT."""
    made: str
    version: str
    """Of this package, at the coordinator."""
    flower: str
    """Of Flower, at the coordinator."""
    code: str
    """Digest of the files that run at a site (``code.py``)."""
    bundles: list[str]
    """Digests of Flower's bundles of the same."""
    base: str
    """``model.path`` of the scenario."""
    base_digest: str
    node_key: str
    identity: str
    fingerprint: str
    """Of all sites' identities: to be compared by telephone."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Public label -> its text."""
    stages: dict[str, list[str]]
    """Stage -> the labels that it keeps; empty: all."""


class CoordinatorKit(Section):
    """Of the coordinator."""

    format: Literal[1] = 1
    role: Literal["coordinator"] = "coordinator"
    federation: str
    coordinator: str
    """HOST:PORT, as sites reach it."""
    listen: str
    """HOST:PORT, as it listens."""
    reach: str
    """HOST:PORT, as its own machine reaches it; its certificate is for this too."""
    made: str
    version: str
    flower: str
    code: str
    bundles: list[str]


K = TypeVar("K", SiteKit, CoordinatorKit)


def read_site_kit(folder: Path) -> SiteKit:
    """The kit of a site in ``folder``.

    Raises:
        ConfigError: there is none, or its faults.
    """
    return _read(folder, SiteKit)


def read_coordinator_kit(folder: Path) -> CoordinatorKit:
    """The kit of the coordinator in ``folder``.

    Raises:
        ConfigError: there is none, or its faults.
    """
    return _read(folder, CoordinatorKit)


def write_flower(folder: Path, federation: str, reach: str) -> None:
    """Flower's own configuration in the coordinator's kit, for `flwr`: it must hold where ``ca.crt`` lies now."""
    own_folder((folder / FLOWER).parent)
    link = {"address": reach, "root-certificates": str((folder / AUTHORITY).absolute())}
    write_file(folder / FLOWER, table_to_toml({"superlink": {"default": federation, federation: link}}))


def _read(folder: Path, kind: type[K]) -> K:
    remedy = "have the coordinator write the kit again (llmchain-fl provision); never edit this file"
    try:
        return kind.model_validate(read_toml(folder / KIT, "kit", remedy=remedy))
    except pydantic.ValidationError as error:
        raise ConfigError([f"{folder / KIT}: {line}" for line in faults_of(error, kind)], remedy=remedy) from None
