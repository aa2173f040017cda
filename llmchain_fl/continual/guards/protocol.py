"""What a guard against forgetting may do, and what it must declare.

A guard has two halves that never meet: one at the site (inside the per-example loss, so that it is clipped and noised
with it), one at the server (post-processing of aggregates). The only channel between them is ``payload``: named arrays
that the server already holds, so already released.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from llmchain_fl.adapter.value import Arrays
from llmchain_fl.tasks.base import Examples, Output, Task


class SiteGuard(Protocol):
    """The half at the site; made anew for each round."""

    def example_loss(self, task: Task, examples: Examples, index: Sequence[int], output: Output) -> Tensor:
        """Added to each record's loss, float32 [n]; clipped and noised together with it."""


class ServerGuard(Protocol):
    """The half at the server. ``current`` is what sites train on from here, ``serving`` what is scored and kept."""

    def payload(self) -> Arrays:
        """Arrays the site half needs, named ``<prefix>.<array>``; those that no site trains do not travel."""

    def after_aggregate(self, current: Arrays) -> Arrays:
        """After each round: the serving adapter for this ``current``."""

    def on_stage_end(self, current: Arrays, serving: Arrays) -> Arrays:
        """At the end of a stage: what the next stage starts from."""

    def state(self) -> Arrays:
        """Everything that must survive a crash, as arrays."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""


@dataclass(frozen=True)
class GuardParts:
    """One line of the table: how to make the halves, and the privacy claim of the guard.

    ``claim`` is read by people and by the ledger issue: ``in-step`` (inside the clipped loss) or ``post-processing``.
    Both cost no epsilon.
    """

    claim: str
    server: Callable[[Mapping[str, float]], ServerGuard]
    site: Callable[[Mapping[str, float], Arrays], SiteGuard] | None = None
