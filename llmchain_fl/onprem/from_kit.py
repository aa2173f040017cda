"""What ``site up`` and ``coordinator up`` are told, from the files of a kit."""

from __future__ import annotations

from pathlib import Path

from llmchain_fl.onprem.federation import split
from llmchain_fl.onprem.keys import NODE_KEY
from llmchain_fl.onprem.kit import (
    AUTHORITY,
    FLOWER,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    SITE,
    read_coordinator_kit,
    read_site_kit,
    write_flower,
)
from llmchain_fl.onprem.register import register_kit
from llmchain_fl.onprem.settings import CoordinatorSettings, SiteSettings
from llmchain_fl.onprem.texts import SWITCHES


def site_of(kit: Path, port: int = 0) -> SiteSettings:
    """The site whose kit is in ``kit``.

    Raises:
        ConfigError: there is none, or its faults.
    """
    kit = kit.absolute()
    site_kit = read_site_kit(kit)
    return SiteSettings(
        kit / SITE, site_kit.coordinator, kit / AUTHORITY, kit / NODE_KEY, port=port, environment=_environment(kit)
    )


def coordinator_of(kit: Path, database: Path | None = None) -> CoordinatorSettings:
    """The coordinator whose kit is in ``kit``; each time its SuperLink answers, the roster is entered again.

    Raises:
        ConfigError: there is none, or its faults.
    """
    kit = kit.absolute()
    coordinator_kit = read_coordinator_kit(kit)
    write_flower(kit, coordinator_kit.federation, coordinator_kit.reach)
    host, port = split(coordinator_kit.listen)
    return CoordinatorSettings(
        host,
        port,
        split(coordinator_kit.reach)[0],
        kit / AUTHORITY,
        kit / SERVER_CERTIFICATE,
        kit / SERVER_KEY,
        database=database,
        on_answer=lambda: _enter(kit),
        environment=_environment(kit),
    )


def _enter(kit: Path) -> None:
    register_kit(kit)


def _environment(kit: Path) -> dict[str, str]:
    """Flower's own files stay in the kit; nobody is called for a base model."""
    return {**SWITCHES, "FLWR_HOME": str((kit / FLOWER).parent)}
