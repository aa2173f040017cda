"""The table of guards; a new guard is one file and one line here, or an entry point of another package.

Light: a guard's file is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmchain_fl.registry import Table

if TYPE_CHECKING:
    from llmchain_fl.guards.guard import Guard

_HERE = "llmchain_fl.guards"
GUARDS: Table[Guard] = Table(
    "guards",
    {
        "agem": f"{_HERE}.agem:GUARD",
        "anchor": f"{_HERE}.anchor:GUARD",
        "distill": f"{_HERE}.distill:GUARD",
        "ema": f"{_HERE}.ema:GUARD",
        "gate": f"{_HERE}.gate:GUARD",
        "merge": f"{_HERE}.merge:GUARD",
        "olora": f"{_HERE}.olora:GUARD",
        "rehearsal": f"{_HERE}.rehearsal:GUARD",
        "replay": f"{_HERE}.replay:GUARD",
        "route": f"{_HERE}.route:GUARD",
        "slots": f"{_HERE}.slots:GUARD",
    },
    f"{_HERE}.guard:Guard",
)
"""Name in the configuration -> what the guard declares. ``none`` is an empty list of guards."""
