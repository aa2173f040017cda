"""``distill`` at a site: stay near the outputs of the last consolidated adapter.

The formula: ``llmchain_fl/guards/distill.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from llmchain_fl.core.adapter.resident import State
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards import teacher
from llmchain_fl.core.guards.public_records import PublicSample
from llmchain_fl.core.guards.site_guard import Adds, Settings, SiteGuard
from llmchain_fl.core.guards.spec import TEACHER
from llmchain_fl.core.ranges import Bound, Range
from llmchain_fl.core.tasks.base import Examples, Output, Task

RECORDS = "distill-records"
Data = Literal["batch", "public"]


class DistillSite(SiteGuard):
    """Adds the distillation term to each record's loss, or the one on public records after the noise."""

    bounds: ClassVar[Mapping[str, Bound]] = {
        "weight": Range(0, 1e4),
        "temperature": Range(0, 100, above=True),
        "data": get_args(Data),
        "batch": Range(1, 10_000),
    }
    adds: ClassVar[Adds] = "gradient"

    def __init__(self, settings: Settings, payload: Arrays) -> None:
        self._weight, self._temperature = float(settings["weight"]), float(settings["temperature"])
        self._public = settings.get("data", "batch") == "public"
        self._sample = PublicSample(RECORDS, payload, int(settings.get("batch", 16)))
        self._teacher, self._scale = teacher.received(TEACHER, payload)
        self._state: State | None = None

    def example_loss(self, task: Task, examples: Examples, index: Sequence[int], output: Output) -> Tensor | None:
        """weight x T^2 KL(teacher || student) per record, float32 [n]; None without a teacher."""
        if self._public or not self._acts:
            return None
        return self._divergence(task, examples, index, output)

    def penalty(self, task: Task) -> Tensor | None:
        """The mean over this step's public records."""
        if not (self._public and self._acts and self._sample):
            return None
        examples = self._sample.examples(task)
        index = self._sample.next_rows(examples)
        return examples.mean(self._divergence(task, examples, index, task.forward(examples, index)), index)

    @property
    def _acts(self) -> bool:
        return bool(self._teacher) and self._weight > 0

    def _divergence(self, task: Task, examples: Examples, index: Sequence[int], output: Output) -> Tensor:
        if self._state is None:
            self._state = teacher.state_of(task.resident, self._teacher, self._scale)
        with torch.no_grad(), task.resident.swapped(self._state):
            taught = task.forward(examples, index)
        return self._weight * task.divergence(output, taught, self._temperature)
