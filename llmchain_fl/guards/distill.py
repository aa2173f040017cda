"""``distill``: stay near the outputs of the last consolidated adapter.

Learning without Forgetting (Li & Hoiem 2016, eq. 2-3), as self-distillation, on the batch or on public records:

    data = "batch"    loss_i = CE_i + weight * T^2 * KL( softmax(z_old(x_i) / T) || softmax(z(x_i) / T) )
    data = "public"   penalty = mean over ``batch`` public records p of weight * T^2 * KL( ... z_old(p) || ... z(p) )

z_old: logits of the adapter that was serving when the last stage ended, over the whole public label list. The teacher
is a released adapter, so neither costs epsilon. On the batch the term stands inside the per-example loss, which is
clipped and noised as a whole: clip norm C is shared between the two terms, so a large weight costs plasticity. On
public records the gradient is exact, follows the noise and costs no clip norm; it protects what those records ask.

Where we differ: the paper distils old-task heads only; there is one label space here, so all of it. Their data is the
batch; public text is common in federated distillation.

====================================  ====================================================================
case                                  result
====================================  ====================================================================
first stage (no teacher)              adds exactly zero; no penalty
weight = 0                            adds nothing, bit for bit
teacher = student                     adds exactly zero loss and zero gradient
weight -> infinity                    outputs on the batch (on the public records) stay those of the teacher, as
                                      far as steps of this learning rate can hold them: with ``adam`` for any
                                      weight; ``sgd`` diverges once lr x weight x curvature passes 2
public records of a stage to come     not used yet: the teacher has nothing to say about them
"public", and no public records       ConfigError at the end of the first stage
====================================  ====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from llmchain_fl.continual.public_shelf import PublicShelf, of_ended
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.guards import teacher
from llmchain_fl.core.guards.distill import RECORDS, Data, DistillSite
from llmchain_fl.core.guards.site_guard import Settings
from llmchain_fl.core.guards.spec import TEACHER
from llmchain_fl.guards.guard import Claim, Guard, GuardSettings, Records, within
from llmchain_fl.guards.needs import one_adapter
from llmchain_fl.guards.protocol import ServerGuard, View


class DistillServer(ServerGuard):
    """Keeps the serving adapter of the last stage's end and sends it along, with public records where it needs them."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._public = settings.get("data", "batch") == "public"
        self._teacher: Arrays = {}
        self._scale = 0.0
        self._shelf = PublicShelf(RECORDS)

    def payload(self) -> Arrays:
        """The teacher, once there is one."""
        return teacher.sent(TEACHER, self._teacher, self._scale) | self._shelf.arrays()

    def step(self, view: View, current: Arrays) -> Arrays:
        """The next round draws anew."""
        if self._public:
            self._shelf.turn(view.seed, view.round + 1)
        return current

    def on_stage_end(self, view: View, current: Arrays, serving: Arrays) -> Arrays:
        """The serving adapter becomes the teacher.

        Raises:
            ConfigError: it distils on public records and the run has none of the stages so far.
        """
        self._teacher, self._scale = dict(serving), view.scale
        if self._public:
            rows = of_ended(view.public_rows, view.stages, view.stage)
            if not rows:
                raise ConfigError(
                    ['continual.distill.data = "public" needs continual.public with records of the ended stages']
                )
            self._shelf.put(rows)
        return current

    def state(self) -> Arrays:
        """Teacher, scale and records."""
        return self.payload()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The same."""
        self._teacher, self._scale = teacher.received(TEACHER, dict(state))
        self._shelf.load(dict(state))


class DistillSettings(GuardSettings):
    """Stays near the outputs of the adapter that was serving when the last stage ended."""

    weight: Annotated[float, within(DistillSite.bounds["weight"])] = 1.0
    """Weight of the distillation loss against the task loss."""
    temperature: Annotated[float, within(DistillSite.bounds["temperature"])] = 2.0
    """Temperature of the distillation."""
    data: Data = "batch"
    """On the records of the step (shares their clip norm), or on public records (after the noise)."""
    batch: Annotated[int, within(DistillSite.bounds["batch"])] = 16
    """On public records: how many in a step."""

    @property
    def claim(self) -> Claim:
        """On the batch it is a part of each record's loss."""
        return "in-step" if self.data == "batch" else "post-processing"

    @property
    def records(self) -> Records:
        """Any text has outputs."""
        return "public" if self.data == "public" else "none"


GUARD = Guard(
    "distill",
    DistillSettings,
    DistillServer,
    DistillSite,
    needs=(one_adapter("keeps the outputs of one adapter"),),
    stages="earlier",
    teaches=True,
    idle_at_zero=("weight",),
)
