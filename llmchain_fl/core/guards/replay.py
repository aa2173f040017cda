"""``replay`` at a site: trains on public or generated records of the stages that have ended.

The formula: ``llmchain_fl/guards/replay.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards.public_records import PublicSample
from llmchain_fl.core.guards.site_guard import Adds, Settings, SiteGuard
from llmchain_fl.core.ranges import Bound, Range
from llmchain_fl.core.tasks.base import Task

RECORDS = "replay-records"


class ReplaySite(SiteGuard):
    """Adds the loss on these records after the noise."""

    bounds: ClassVar[Mapping[str, Bound]] = {"weight": Range(0, 1e4), "batch": Range(1, 10_000)}
    adds: ClassVar[Adds] = "gradient"

    def __init__(self, settings: Settings, payload: Arrays) -> None:
        self._weight = float(settings["weight"])
        self._sample = PublicSample(RECORDS, payload, int(settings["batch"]))

    def penalty(self, task: Task) -> Tensor | None:
        """weight x the mean loss of this step's records; None in the first stage."""
        if not self._sample or self._weight == 0:
            return None
        examples = self._sample.examples(task, answered=True)
        index = self._sample.next_rows(examples)
        return self._weight * examples.mean(task.losses(task.forward(examples, index)), index)
