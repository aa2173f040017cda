"""What the half of a guard at the server may do. What a guard declares: ``guard.py``.

A guard has two halves that never meet: one at the site (``llmchain_fl/core/guards/site_guard.py``: where each hook
stands in a step), one at the server (post-processing of aggregates). The only channel between them is ``payload``:
named arrays that the server already holds, so already released. Hooks are applied in the order of ``continual.guards``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards.site_guard import Settings
from llmchain_fl.core.tasks.base import Examples, Task


@dataclass(frozen=True)
class View:
    """What a server half may look at: nothing of it is private.

    Attributes:
        round: from 1 over all stages.
        stage: 0-based stage of this round, by the run's calendar.
        stages: names of all stages in the order taught.
        last: whether this is the last round of the stage.
        scale: s of the global adapter.
        seed: the run's.
        before: the global arrays that the round began with.
        probe: scores of any arrays on public sets, stage name -> value, higher is better (a loss is negated); stages
            without a public set are not in it.
        task: the task over the resident model, for guards that compute with it (the scorer loads its own arrays).
        public: public records (``continual.public``), encoded; None if the run names none.
        public_rows: the same records as rows, for guards that send them to sites; column ``stage`` where they have one.
        noise: standard deviation of the known noise on each entry of the released arrays: 0 where nothing is noised,
            None where there is noise whose size in the arrays is not known (an Adam step, a factorisation after it).
        labels: the labels (positions) of all stages that sites were at in this round; empty where no guard asks.
    """

    round: int
    stage: int
    stages: tuple[str, ...]
    last: bool
    scale: float
    seed: int
    before: Arrays
    probe: Callable[[Arrays], Mapping[str, float]]
    task: Task
    public: Examples | None = None
    public_rows: tuple[Mapping[str, str], ...] = ()
    noise: float | None = 0.0
    labels: tuple[int, ...] = ()


class ServerGuard:
    """The half at the server; lives as long as the run. Override what is needed.

    ``current`` is what sites train on from here, ``serving`` what is scored and kept. Arrays that are handed in are not
    changed in place.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @classmethod
    def check(cls, start: Arrays, stages: int) -> None:
        """Refuse, before round 1, an adapter or a number of stages that it cannot work with; by default none.

        Raises:
            ModelError: see above.
        """

    def payload(self) -> Arrays:
        """Arrays the site half needs, named ``<prefix>.<array>``; those that no site is sent do not travel."""
        return {}

    def step(self, view: View, current: Arrays) -> Arrays:
        """After each round: the ``current`` to go on with (a gate, a projection)."""
        return current

    def serve(self, view: View, serving: Arrays) -> Arrays:
        """After each round: the serving adapter, from what the guards before this one made of it."""
        return serving

    def on_stage_end(self, view: View, current: Arrays, serving: Arrays) -> Arrays:
        """At the end of a stage: what the next stage starts from."""
        return current

    def notes(self) -> Mapping[str, float]:
        """What it did in this round, as named numbers for the run's metrics (``guard_<name>_<key>``)."""
        return {}

    def state(self) -> Arrays:
        """Everything that must survive a crash, as arrays."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
