"""A practice site: made-up people, a real ledger in a folder of its own, and the real path of a round.

Nothing here draws, clips, adds noise or books anything: ``play_round`` does, and what it lets out is read back. Plain
SGD with learning rate 1 and no momentum, so the update of a step is minus the noised sum over the public divisor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from flwr.app import RecordDict
from torch import Tensor

from client.dataset import Part, SiteRecords
from client.rounds import play_round
from llmchain_fl.core.errors import TrainingError
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.privacy.charges import at_site, training_charges, training_group
from llmchain_fl.core.privacy.groups import site_group
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.release import Release, Terms
from llmchain_fl.core.privacy.units import Units
from llmchain_fl.core.tasks.passes import Shape
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import TrainSpec, WorkSpec
from llmchain_fl.replies import Update, read_reply
from simulations.audit.probe import ADAPTER, BASE, ProbeTask

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]

STAGE = "practice"
READABLE = 0.02
"""Noise multiplier at which one person's contribution stands 50 standard deviations above the noise, while the program
takes the same path as with full noise: membership *and* noise are read from one update."""


def one_hot(people: int, width: int, size: float, records: int = 1) -> Features:
    """Person i's records all point along coordinate i with norm ``size``, [people * records, width]."""
    rows = np.zeros((people * records, width), dtype=np.float32)
    owner = np.repeat(np.arange(people), records)
    rows[np.arange(len(rows)), owner] = size
    return rows


def names(people: int, records: int = 1) -> list[str]:
    """Whose the records of :func:`one_hot` are."""
    return [f"person-{i}" for i in range(people) for _ in range(records)]


def plan_for(
    rate: float, noise: float, steps: int = 1, *, clip: float = 1.0, divisor: float = 8.0, delta: float = 1e-5
) -> PrivacyPlan:
    """A person-level plan; up to 16 records of a person in one step."""
    return PrivacyPlan(
        sampling_rate=rate,
        noise_multiplier=noise,
        clip_norm=clip,
        steps_per_round=steps,
        divisor=divisor,
        delta=delta,
        unit="person",
        records_per_unit=16,
    )


@dataclass(frozen=True)
class Round:
    """What one round let out.

    Attributes:
        update: trained minus received, [P].
        steps: the update of each step, [t, P]; a step without a drawn person is part of the next one.
        reply: what leaves the site.
    """

    update: Floats
    steps: Floats
    reply: RecordDict


class PracticeSite:
    """A site whose every round can be read.

    Args:
        folder: where its ledger is made (``name`` below it); the same folder and name is the same site.
        features: one row for each record: its gradient.
        people: whose each record is.
        plan: of all its rounds.
        rows: records in one forward pass.
        half: gradients in bfloat16.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        features: Features,
        people: Sequence[str],
        plan: PrivacyPlan,
        *,
        rows: int = 64,
        half: bool = False,
    ) -> None:
        self.name, self.plan, self.units = name, plan, Units.of_people(people)
        self.task = ProbeTask(features, half=half)
        self.examples = self.task.examples()
        self.examples.fix(Shape(rows, 8))
        records = SiteRecords(self.examples, self.units, tuple(dict.fromkeys(people)))
        self.parts = [
            Part(STAGE, site_group(training_group(plan, STAGE), name), records, np.ones(len(self.units), bool))
        ]
        self.ledger = FileLedger(
            folder / name, folder / f"{name}.anchor", Terms(name, plan.unit, plan.delta, "pld", float("inf"))
        )
        train = TrainSpec(plan.steps_per_round, plan.sampling_rate, plan.divisor, rows, "sgd", momentum=0.0, seed=1)
        self.work = WorkSpec(BASE, ADAPTER, TaskSpec("classification"), train, plan=plan)
        self.played = 0

    @property
    def width(self) -> int:
        """P."""
        return int(self.task.features.shape[1])

    def told(self, number: int, start: Floats | None = None) -> TrainTask:
        """What the server sends for round ``number``."""
        arrays = self.task.arrays(np.zeros(self.width) if start is None else start)
        work = self.work.to_json()
        return TrainTask("gate", number, 0, STAGE, 1.0, work, arrays, federation="gate")

    def release(self, task: TrainTask) -> Release:
        """What that round costs here."""
        charges = at_site(training_charges(self.plan, STAGE), self.name, named=self.plan.unit == "person")
        return Release(task.key, charges, self.plan.digest(), "training", task.federation, STAGE)

    def answer(self, task: TrainTask) -> RecordDict:
        """The reply to that round, by the path that every round takes."""
        return play_round(self.name, self.ledger, task, self.work, self.task, self.parts, self.release(task))

    def play(self, start: Floats | None = None) -> Round:
        """The next round, through the real path.

        Raises:
            TrainingError: the reply is no update.
        """
        self.played += 1
        task = self.told(self.played, start)
        self.task.trace()
        reply = self.answer(task)
        answer = read_reply(reply)
        if not isinstance(answer, Update):
            raise TrainingError("the reply is no update", remedy="read the log of the gate")
        update = self.task.vector(answer.arrays)
        begun = self.task.vector(task.arrays)
        ends = np.concatenate([self.task.trace(), (begun + update)[None, :]])
        return Round(update, np.diff(ends, axis=0), reply)

    def total(self) -> Floats:
        """The noised sum behind the next round, all its steps together; NaN where the site refused.

        A refusal because of who was drawn, or of what a record holds, tells of that person.
        """
        try:
            return self.sums(self.play().update)
        except TrainingError:
            return np.full(self.width, np.nan)

    def loss(self, index: Sequence[int]) -> Tensor:
        """One loss for each record, as the training loop computes it."""
        return self.task.losses(self.task.forward(self.examples, index))

    def sums(self, steps: Floats) -> Floats:
        """Updates -> the noised sums behind them, in the same shape: -update * divisor."""
        return -steps * self.plan.divisor
