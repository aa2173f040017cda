"""The guards of which a half acts at a site: name -> its class."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from llmchain_fl.core.guards.agem import AgemSite
from llmchain_fl.core.guards.anchor import AnchorSite
from llmchain_fl.core.guards.distill import DistillSite
from llmchain_fl.core.guards.olora import OloraSite
from llmchain_fl.core.guards.rehearsal import RehearsalSite
from llmchain_fl.core.guards.replay import ReplaySite
from llmchain_fl.core.guards.site_guard import SiteGuard

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
