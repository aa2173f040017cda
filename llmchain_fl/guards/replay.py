"""``replay``: train on public or generated records of the stages that have ended, beside the site's own.

Experience replay (Chaudhry et al. 2019, arXiv 1902.10486) without a private buffer, or LAMOL's pseudo-samples (Sun,
Ho & Lee 2020, arXiv 1909.03329, section 3):

    penalty = weight x mean over ``batch`` records p of the task's loss on p

    data = "public"       p: public records of the ended stages, with their labels (plain text needs none)
    data = "generated"    p: ``size`` texts for each ended stage, drawn from the adapter that was serving at its end

Neither reads a private record: the generator is a released adapter, so what it writes is post-processing of it,
whatever it writes (a text that it repeats from training is covered by the same epsilon). The gradient is exact and
follows the noise. The guard ``rehearsal`` is the charged one, on a site's own records.

====================================  ====================================================================
case                                  result
====================================  ====================================================================
first stage                           no penalty
weight = 0                            adds nothing, bit for bit
weight -> infinity                    the step is that of training on these records alone
public records of a stage to come     not used yet
no public record of an ended stage    ConfigError at the end of the first stage
one without a label                   the same
all generated texts are empty         the same: the model says nothing that could be trained on
the run is stopped and goes on        the same texts: they are part of the state
====================================  ====================================================================

Where we differ: LAMOL generates at the trainer and mixes the samples into its batches, with a token for each task; here
the server generates once a stage, from the start token alone, and every site gets the same texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from llmchain_fl.continual.imagine import imagine
from llmchain_fl.continual.public_shelf import PublicShelf, of_ended
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.guards import teacher
from llmchain_fl.core.guards.public_records import Row, unpack
from llmchain_fl.core.guards.replay import RECORDS, ReplaySite
from llmchain_fl.core.guards.site_guard import Settings
from llmchain_fl.core.tasks.base import Task
from llmchain_fl.core.tasks.causal_lm import CausalLM
from llmchain_fl.guards.agem import is_labelled
from llmchain_fl.guards.guard import Guard, GuardSettings, Records, within
from llmchain_fl.guards.protocol import ServerGuard, View


class ReplayServer(ServerGuard):
    """Hands the records of the ended stages to the sites."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._shelf = PublicShelf(RECORDS)

    def payload(self) -> Arrays:
        """The records, once there are some, and the key of this round's draws."""
        return self._shelf.arrays()

    def step(self, view: View, current: Arrays) -> Arrays:
        """The next round draws anew."""
        self._shelf.turn(view.seed, view.round + 1)
        return current

    def on_stage_end(self, view: View, current: Arrays, serving: Arrays) -> Arrays:
        """The records of the next stage.

        Raises:
            ConfigError: there is nothing to train on.
        """
        if self.settings.get("data", "public") == "generated":
            rows = self._known() + self._generated(view, serving)
        else:
            rows = of_ended(view.public_rows, view.stages, view.stage)
            if not all(_trainable(row, view.task) for row in rows):
                raise ConfigError(["the guard `replay` trains on continual.public: its records need labels"])
        if not rows:
            raise ConfigError(["the guard `replay` has no record of the stages that have ended"])
        self._shelf.put(rows)
        return current

    def _known(self) -> tuple[Row, ...]:
        packed = self._shelf.arrays().get(f"{RECORDS}.rows")
        return () if packed is None else unpack(packed)

    def _generated(self, view: View, serving: Arrays) -> tuple[Row, ...]:
        """Texts of the stage that ends, from the adapter that serves it."""
        state = teacher.state_of(view.task.resident, serving, view.scale)
        with view.task.resident.swapped(state):
            texts = imagine(view.task, int(self.settings["size"]), seed=(view.seed, view.stage))
        return tuple({"text": text, "stage": view.stages[view.stage]} for text in texts)

    def state(self) -> Arrays:
        """The payload."""
        return self.payload()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The payload."""
        self._shelf.load(dict(state))


def _trainable(row: Row, task: Task) -> bool:
    """Whether the task's loss can be taken on it."""
    return is_labelled(row) or (isinstance(task, CausalLM) and "prompt" not in row)


class ReplaySettings(GuardSettings):
    """Trains on public or generated records of earlier stages."""

    data: Literal["public", "generated"] = "public"
    """Public records of the ended stages, or texts that the served adapter writes (plain text only)."""
    weight: Annotated[float, within(ReplaySite.bounds["weight"])] = 1.0
    """Weight of their loss against the task's."""
    batch: Annotated[int, within(ReplaySite.bounds["batch"])] = 16
    """How many in a step."""
    size: Annotated[int, Field(ge=1, le=5_000)] = 200
    """On generated texts: how many are written at the end of each stage."""

    @property
    def records(self) -> Records:
        """It trains on them."""
        return "generated" if self.data == "generated" else "public with answers"


GUARD = Guard("replay", ReplaySettings, ReplayServer, ReplaySite, stages="earlier", idle_at_zero=("weight",))
