"""``agem``: no step that makes the reference worse.

A-GEM (Chaudhry et al. 2019, arXiv 1812.00420, eq. 11), on *public* reference records of the stages that have ended:

    g <- g - min(0, g . g_ref) / |g_ref|^2  g_ref  x strength               g: noised, with the penalties' gradients

g_ref: gradient of the mean loss of ``batch`` public records at the present adapter: the task's loss where they have
labels (or answers), else the divergence from the adapter that was serving at the last stage's end. It reads nothing
private and turns what is already noised: no epsilon. A reference on private records would be charged.

An optimiser with momentum or preconditioning (Adam) turns a projected gradient back. So after it the step itself is
projected the same way; under plain SGD that changes nothing.

strength is the share of the conflicting part that is taken out; 1 is A-GEM and the most there is.

==========================================  ============================================================
case                                        result
==========================================  ============================================================
first stage, or no reference yet            nothing
strength = 0                                nothing, bit for bit; no pass over the reference
strength = 1                                no step against the reference: step . g_ref <= 0 (to first order
                                            its loss does not grow)
g . g_ref >= 0                              g as it is
g_ref = 0 (student is the teacher)          g as it is
no public records in the run                ConfigError at the end of the first stage
==========================================  ============================================================

Where we differ: public reference instead of an episodic memory of private records; the step after an adaptive
optimiser is projected too; rows of a stage (column ``stage``) that has not ended are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from llmchain_fl.continual.public_shelf import PublicShelf, of_ended
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.guards import teacher
from llmchain_fl.core.guards.agem import RECORDS, TEACHER, AgemSite
from llmchain_fl.core.guards.site_guard import Settings
from llmchain_fl.guards.guard import Guard, GuardSettings, Records, within
from llmchain_fl.guards.protocol import ServerGuard, View


class AgemServer(ServerGuard):
    """Hands the public records of the stages so far to the sites; with a teacher where they have no labels."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._shelf = PublicShelf(RECORDS)
        self._teacher: Arrays = {}
        self._scale = 0.0

    def payload(self) -> Arrays:
        """Records, key of the draws, teacher."""
        return teacher.sent(TEACHER, self._teacher, self._scale) | self._shelf.arrays()

    def step(self, view: View, current: Arrays) -> Arrays:
        """The next round draws anew."""
        self._shelf.turn(view.seed, view.round + 1)
        return current

    def on_stage_end(self, view: View, current: Arrays, serving: Arrays) -> Arrays:
        """The reference of the next stage.

        Raises:
            ConfigError: the run has no public records, or none of a stage that has ended.
        """
        rows = of_ended(view.public_rows, view.stages, view.stage)
        if not rows:
            raise ConfigError(["the guard `agem` needs continual.public with records of the stages that have ended"])
        self._shelf.put(rows)
        labelled = all(is_labelled(row) for row in rows)
        self._teacher, self._scale = ({}, 0.0) if labelled else (dict(serving), view.scale)
        return current

    def state(self) -> Arrays:
        """The payload."""
        return self.payload()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The payload."""
        self._shelf.load(dict(state))
        self._teacher, self._scale = teacher.received(TEACHER, dict(state))


def is_labelled(row: Mapping[str, str]) -> bool:
    """Whether the task's loss can be taken on it: a label, or an answer."""
    return bool(row.get("label")) or bool(row.get("answer"))


class AgemSettings(GuardSettings):
    """No step that makes the public records of earlier stages worse."""

    strength: Annotated[float, within(AgemSite.bounds["strength"])] = 1.0
    """Share of a step against the public reference that is taken out."""
    batch: Annotated[int, within(AgemSite.bounds["batch"])] = 16
    """Public records a step is compared with."""

    @property
    def records(self) -> Records:
        """The stages that have ended must be known."""
        return "public by stage"


GUARD = Guard("agem", AgemSettings, AgemServer, AgemSite, stages="earlier", idle_at_zero=("strength",))
