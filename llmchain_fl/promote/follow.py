"""A process that serves whatever the pointer of a line names: a change swaps arrays, the base model stays in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmchain_fl.promote.asking import load
from llmchain_fl.promote.line import Line

if TYPE_CHECKING:
    from llmchain_fl.core.adapter.resident import Resident
    from llmchain_fl.core.tasks.base import Task
    from llmchain_fl.hub.door import VerifiedAdapter
    from llmchain_fl.hub.trust import Trust

MOST_KEPT = 4


class Follower:
    """What is served, in memory; :meth:`refresh` before a batch.

    Adapters that were served lately stay verified in memory, so that a rollback reads nothing but the pointer.

    Args:
        line: whose pointer is followed.
        trust: of this machine.
        base: the base model's folder or known name; "" as published.
    """

    def __init__(self, line: Line, trust: Trust, base: str = "") -> None:
        self._line, self._base, self._trust = line, base, trust
        self._kept: dict[str, VerifiedAdapter] = {}
        self.adapter: VerifiedAdapter | None = None
        self.resident: Resident | None = None
        self.task: Task | None = None

    def refresh(self, trust: Trust | None = None) -> bool:
        """Serve what the pointer names; whether that is another adapter than before.

        ``trust``: as it is now, where it has changed: what was taken back is dropped and not served again.

        Raises:
            RunError: nothing was promoted yet.
            HubError: it does not pass; what was served before stays.
        """
        if trust is not None:
            self._trust, self._kept = trust, {}
        address = self._line.current
        if self.adapter is not None and address == self.adapter.address and trust is None:
            return False
        adapter = self._kept.get(address) or self._line.served(self._trust)
        self.resident, self.task = load(adapter.work_on(self._base), adapter)
        self._kept = {**{key: value for key, value in self._kept.items() if key != address}, address: adapter}
        while len(self._kept) > MOST_KEPT:
            self._kept.pop(next(iter(self._kept)))
        moved, self.adapter = self.adapter is None or address != self.adapter.address, adapter
        return moved
