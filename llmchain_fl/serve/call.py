"""One request that was let in."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmchain_fl.serve.served import Served
from llmchain_fl.serve.tenants import Caller

if TYPE_CHECKING:
    from llmchain_fl.serve.tasks import ServedTask


@dataclass(frozen=True)
class Call:
    """Who asks, what answers, until when.

    Attributes:
        request: its id.
        until: loop time of its deadline.
        gone: set when nobody waits any more.
        tokens: of each row, as they are read.
    """

    caller: Caller
    served: Served
    task: ServedTask
    threshold: float
    until: float
    request: str = field(default_factory=lambda: f"req-{secrets.token_hex(12)}")
    gone: threading.Event = field(default_factory=threading.Event)
    tokens: list[int] = field(default_factory=list)

    def unsure(self, chance: float) -> bool:
        """Whether an answer of this probability abstains."""
        return chance < self.threshold
