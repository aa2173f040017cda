"""The table of guards; a new guard is one file and one line here, or an entry point of another package.

Light: a guard's file is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmchain_fl.registry import Table

if TYPE_CHECKING:
    from llmchain_fl.guards.guard import Guard

MASK = "mask"
"""The guard of private streams of new labels where no other is named."""
GUARDS: Table[Guard] = Table(
    "guards",
    {
        "agem": "llmchain_fl.guards.agem:GUARD",
        "anchor": "llmchain_fl.guards.anchor:GUARD",
        "distill": "llmchain_fl.guards.distill:GUARD",
        "ema": "llmchain_fl.guards.ema:GUARD",
        "gate": "llmchain_fl.guards.gate:GUARD",
        MASK: "llmchain_fl.guards.mask:GUARD",
        "merge": "llmchain_fl.guards.merge:GUARD",
        "olora": "llmchain_fl.guards.olora:GUARD",
        "rehearsal": "llmchain_fl.guards.rehearsal:GUARD",
        "replay": "llmchain_fl.guards.replay:GUARD",
        "route": "llmchain_fl.guards.route:GUARD",
        "slots": "llmchain_fl.guards.slots:GUARD",
    },
    "llmchain_fl.guards.guard:Guard",
)
"""Name in the configuration -> what the guard declares. ``none`` is an empty list of guards."""
