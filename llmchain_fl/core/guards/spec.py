"""A guard as it travels to a site: its name and the settings of its half there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.plugins import Named, installed, load
from llmchain_fl.core.printable import printable
from llmchain_fl.core.ranges import Bound, value_fault

if TYPE_CHECKING:
    from llmchain_fl.core.guards.site_guard import SiteGuard

TEACHER = "teacher"
"""Begins the names of arrays of a payload that a whole pass is taken with: an adapter to stay near to."""
BASE: Named[type[SiteGuard]] = Named({"half": "llmchain_fl.core.guards.site_guard:SiteGuard"})
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


@dataclass(frozen=True)
class GuardSpec:
    """A guard's name and its public settings."""

    name: str
    settings: tuple[tuple[str, float | str], ...] = ()

    def faults(self) -> list[str]:
        """An unknown guard; settings that are missing, unknown or out of bounds: one line each.

        Of a guard of another package only that it is installed: its code is not loaded before the site allows it.
        """
        if self.name in SITE_GUARDS:
            return self.faults_within(SITE_GUARDS[self.name].bounds)
        return [] if self.name in installed("guards") else [f"there is no guard {printable(repr(self.name[:40]))}"]

    def faults_within(self, bounds: Mapping[str, Bound]) -> list[str]:
        """Settings that are missing, unknown or out of ``bounds``: one line each."""
        settings = dict(self.settings)
        faults = [f"guard {self.name}: {key} is missing" for key in bounds if key not in settings]
        faults += [
            f"guard {self.name}: {printable(repr(key[:40]))} is not a setting" for key in settings if key not in bounds
        ]
        checked = (value_fault(key, settings[key], bound) for key, bound in bounds.items() if key in settings)
        return faults + [f"guard {self.name}: {fault}" for fault in checked if fault]


def site_half(name: str) -> type[SiteGuard]:
    """The class at a site. Loads the code of another package: a site asks ``limits.plugins`` before it (``check.py``).

    Raises:
        ConfigError: there is no such guard, it cannot be loaded, or nothing of it acts at a site.
    """
    if name in SITE_GUARDS:
        return SITE_GUARDS[name]
    half = getattr(load("guards", name, SITE_GUARDS), "site", None)
    if isinstance(half, type) and issubclass(half, BASE["half"]):
        return half
    raise ConfigError([f'nothing of the guard "{name}" acts at a site'])
