"""What a run is at: everything that changes from round to round and belongs to no rule, guard or book of its own."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from llmchain_fl.core.adapter.value import Arrays
from server.checkpoint import load_state, read_state

AWAY = 0
"""Node id of a site that is not connected. Flower gives no node this number."""


@dataclass
class RunState:
    """The one owner of the run's arrays, sites, receipts and ends; the loop, the strategy and the recorder share it."""

    run: str
    """Name of the run, part of the key under which a site pays for a round."""
    round: int = 0
    """Rounds done."""
    current: Arrays = field(default_factory=dict)
    """The global arrays that the next round starts from."""
    serving: Arrays = field(default_factory=dict)
    """What guards serve of them."""
    nodes: dict[str, int] = field(default_factory=dict)
    """Site -> its node id, or ``AWAY``."""
    receipts: dict[str, str] = field(default_factory=dict)
    """Site -> the last receipt it gave."""
    ended: dict[str, int] = field(default_factory=dict)
    """Stage -> last round, of the stages whose end was announced."""
    open_end: bool = False
    """The last stage of the plan has ended, and guards have not been told: that waits for what follows it."""
    lineage: str = ""
    """Content of the last adapter of a stage."""
    stopped: str = ""
    """Why the run ended before its plan did."""
    summed: int = 0
    """Rounds that made new arrays."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The configuration in full, as of the last round."""
    labels: dict[str, str] = field(default_factory=dict)
    """The public label list, label -> text."""
    changes: list[dict[str, Any]] = field(default_factory=list)
    """What was changed in the configuration of a run that went on (``changes.jsonl``)."""

    def state(self) -> dict[str, Any]:
        """What must survive; of the nodes only their names, for a connection does not."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"nodes": sorted(self.nodes)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what was saved.

        Raises:
            KeyError: something is missing.
        """
        for one in fields(self):
            setattr(self, one.name, state[one.name])
        self.nodes = dict.fromkeys(state["nodes"], AWAY)


def last_state(folder: Path) -> RunState | None:
    """What a run was at after its last round; None if it never began.

    Raises:
        RunError: the file is damaged, or of another version.
    """
    saved, state = read_state(folder), RunState("")
    if saved is None:
        return None
    load_state(saved, {"run": state})
    return state
