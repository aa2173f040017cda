"""What is checked: a site, its kit where there is one, and what the federation plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.onprem.kit import SiteKit
from llmchain_fl.onprem.site_view import Site


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
