"""A guard as it travels, made from its class at a site."""

from __future__ import annotations

from llmchain_fl.core.guards import SITE_GUARDS
from llmchain_fl.core.guards.site_guard import SiteGuard
from llmchain_fl.core.work import GuardSpec


def spec_of(half: type[SiteGuard], **settings: float | str) -> GuardSpec:
    """Its name and these settings."""
    name = next(name for name, one in SITE_GUARDS.items() if one is half)
    return GuardSpec(name, tuple(sorted(settings.items())))
