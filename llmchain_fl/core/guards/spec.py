"""A guard as it travels to a site: its name and the settings of its half there."""

from __future__ import annotations

from dataclasses import dataclass

from llmchain_fl.core.guards.table import SITE_GUARDS
from llmchain_fl.core.printable import printable
from llmchain_fl.core.ranges import value_fault


@dataclass(frozen=True)
class GuardSpec:
    """A guard's name and its public settings."""

    name: str
    settings: tuple[tuple[str, float | str], ...] = ()

    def value(self, name: str) -> float | str:
        """One setting."""
        return dict(self.settings)[name]

    def faults(self) -> list[str]:
        """An unknown guard; settings that are missing, unknown or out of bounds: one line each."""
        if self.name not in SITE_GUARDS:
            return [f"there is no guard {printable(repr(self.name[:40]))}"]
        told, bounds = dict(self.settings), SITE_GUARDS[self.name].bounds
        faults = [f"guard {self.name}: {key} is missing" for key in bounds if key not in told]
        faults += [
            f"guard {self.name}: {printable(repr(key[:40]))} is not a setting" for key in told if key not in bounds
        ]
        found = (value_fault(key, told[key], bound) for key, bound in bounds.items() if key in told)
        return faults + [f"guard {self.name}: {fault}" for fault in found if fault]
