"""The guards of which a half acts at a site: this project's by name, and those of other packages."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.guards.agem import AgemSite
from llmchain_fl.core.guards.anchor import AnchorSite
from llmchain_fl.core.guards.distill import DistillSite
from llmchain_fl.core.guards.olora import OloraSite
from llmchain_fl.core.guards.rehearsal import RehearsalSite
from llmchain_fl.core.guards.replay import ReplaySite
from llmchain_fl.core.guards.site_guard import SiteGuard
from llmchain_fl.core.plugins import load

SITE_GUARDS: Mapping[str, type[SiteGuard]] = MappingProxyType(
    {
        "agem": AgemSite,
        "anchor": AnchorSite,
        "distill": DistillSite,
        "olora": OloraSite,
        "rehearsal": RehearsalSite,
        "replay": ReplaySite,
    }
)


def site_half(name: str) -> type[SiteGuard]:
    """The class at a site. Loads the code of another package: a site asks ``limits.plugins`` before it (``check.py``).

    Raises:
        ConfigError: there is no such guard, it cannot be loaded, or nothing of it acts at a site.
    """
    if name in SITE_GUARDS:
        return SITE_GUARDS[name]
    half = getattr(load("guards", name, SITE_GUARDS), "site", None)
    if isinstance(half, type) and issubclass(half, SiteGuard):
        return half
    raise ConfigError([f'nothing of the guard "{name}" acts at a site'])
