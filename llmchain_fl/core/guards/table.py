"""The guards of which a half acts at a site: this project's by name, and those of other packages."""

from __future__ import annotations

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.guards.site_guard import SiteGuard
from llmchain_fl.core.plugins import Named, load

SITE_GUARDS: Named[type[SiteGuard]] = Named(
    {
        "agem": "llmchain_fl.core.guards.agem:AgemSite",
        "anchor": "llmchain_fl.core.guards.anchor:AnchorSite",
        "distill": "llmchain_fl.core.guards.distill:DistillSite",
        "mask": "llmchain_fl.core.guards.mask:MaskSite",
        "olora": "llmchain_fl.core.guards.olora:OloraSite",
        "rehearsal": "llmchain_fl.core.guards.rehearsal:RehearsalSite",
        "replay": "llmchain_fl.core.guards.replay:ReplaySite",
    }
)
"""Imported when a task names them."""


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
