"""A guard as it travels to a site: its name and the settings of its half there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmchain_fl.core.guards.table import SITE_GUARDS
from llmchain_fl.core.plugins import installed
from llmchain_fl.core.printable import printable
from llmchain_fl.core.ranges import Bound, value_fault


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
        told = dict(self.settings)
        faults = [f"guard {self.name}: {key} is missing" for key in bounds if key not in told]
        faults += [
            f"guard {self.name}: {printable(repr(key[:40]))} is not a setting" for key in told if key not in bounds
        ]
        found = (value_fault(key, told[key], bound) for key, bound in bounds.items() if key in told)
        return faults + [f"guard {self.name}: {fault}" for fault in found if fault]
