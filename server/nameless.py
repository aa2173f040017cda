"""Nodes that are connected and have said no name: asked less and less often, and told by number, key and reason."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

log = logging.getLogger("llmchain_fl")

FIRST_WAIT, LONGEST_WAIT = 15.0, 60.0
"""Seconds that a node has for its answer: the first time, and at most."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 3600.0
"""Seconds before it is asked again: the first time, and at most."""
SILENT = "it gave no answer"
AGAIN = "%s is no site: %s; it is asked again in %.0f s, and less and less often"


@dataclass
class _Told:
    faults: int
    due: float
    why: str


@dataclass
class Nameless:
    """After k questions without a name a node has min(15 * 2^k, 60) s to answer, and rests min(5 * 2^k, 3600) s.

    So a node that never answers costs the others about ten minutes in its first hour, whatever a round takes, and then
    a minute an hour.

    ==========================================  =====================================
    a node                                      then
    ==========================================  =====================================
    is new                                      asked at once
    has given no name                           asked again after its rest
    has gone, and is there again                asked at once: it may have been mended
    gives a name                                forgotten here
    fails for another reason than before        told in the log; else told once
    ==========================================  =====================================
    """

    most: float
    """Seconds that nobody is waited for longer (``sites.wait_seconds``)."""
    _told: dict[int, _Told] = field(default_factory=dict)

    def due(self, nodes: Collection[int]) -> set[int]:
        """Those of the connected ``nodes`` without a name that are asked now; who is not among them is forgotten."""
        self._told = {node: entry for node, entry in self._told.items() if node in nodes}
        return {node for node in nodes if node not in self._told or time.monotonic() >= self._told[node].due}

    def seconds(self, nodes: Collection[int]) -> float:
        """How long these are waited for."""
        faults = max((self._told[node].faults for node in nodes if node in self._told), default=0)
        return float(min(FIRST_WAIT * 2**faults, LONGEST_WAIT, self.most))

    def answered(
        self, nodes: Collection[int], named: Collection[int], keys: Mapping[int, str], why: Mapping[int, str]
    ) -> None:
        """Of ``nodes``, asked just now, those in ``named`` gave a name. ``keys``: under which each is registered."""
        for node in nodes:
            before = self._told.pop(node, None)
            if node in named:
                continue
            faults, reason = (0, "") if before is None else (before.faults, before.why)
            cause = why.get(node, SILENT)
            pause = min(FIRST_PAUSE * 2**faults, LONGEST_PAUSE)
            self._told[node] = _Told(min(faults + 1, 16), time.monotonic() + pause, cause)
            if cause != reason:
                log.warning(
                    "%s is no site: %s; it is asked again in %.0f s, and less and less often",
                    called(node, keys),
                    cause,
                    pause,
                )

    def words(self, keys: Mapping[int, str]) -> list[str]:
        """Each of them with its reason."""
        return [f"{called(node, keys)}: {entry.why}" for node, entry in sorted(self._told.items())]


def called(node: int, keys: Mapping[int, str]) -> str:
    """``node 17``, with the name under which its key is registered, if it is."""
    return f'node {node} (registered as "{keys[node]}")' if keys.get(node) else f"node {node}"
