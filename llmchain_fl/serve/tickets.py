"""A row that waits for the model, why one may not be computed, and the rows that wait, by kind."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from torch import Tensor

from llmchain_fl.serve.decoder import GONE, LATE, Piece, Prompt
from llmchain_fl.serve.encoder import Row


class Refused(Exception):
    """A row that is not computed."""


class Busy(Refused):
    """The queue, or a tenant's share of it, is full."""


class Late(Refused):
    """Its deadline has passed."""


class Gone(Refused):
    """Nobody waits for it."""


class Draining(Refused):
    """The server ends."""


class Failed(Refused):
    """The pass broke."""


Result = Tensor | Piece | Refused
"""Of a row: its vector, or why there is none. Of a prompt: pieces of its text, the last with a reason."""


@dataclass
class Ticket:
    """One row that waits.

    Attributes:
        tenant: whose.
        make: tokenizes it, on the model's thread.
        give: is given the result, on the model's thread.
        until: monotonic time of the deadline.
        gone: set when nobody waits any more.
    """

    tenant: str
    make: Callable[[], Row | Prompt]
    give: Callable[[Result], None]
    until: float
    gone: threading.Event
    row: Row | Prompt | None = None

    def unwanted(self) -> str:
        """Why nobody waits for it; empty: somebody does."""
        if self.gone.is_set():
            return GONE
        return LATE if time.monotonic() > self.until else ""

    def refused(self) -> Refused | None:
        """Why it is not computed; None: it is."""
        return {GONE: Gone(), LATE: Late()}.get(self.unwanted())


@dataclass
class Waiting:
    """Rows by kind, the oldest first."""

    kinds: dict[Hashable, deque[tuple[float, Ticket]]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.kinds.values())

    def add(self, kind: Hashable, ticket: Ticket) -> None:
        """At the end of its kind."""
        self.kinds.setdefault(kind, deque()).append((time.monotonic(), ticket))

    def take(self, room: Callable[..., int]) -> list[Ticket]:
        """As many as there is room for, of the kind whose first row waits longest."""
        there = [(rows[0][0], kind) for kind, rows in self.kinds.items() if rows]
        if not there:
            return []
        kind = min(there, key=lambda one: one[0])[1]
        rows = self.kinds[kind]
        return [rows.popleft()[1] for _ in range(min(room(kind), len(rows)))]
