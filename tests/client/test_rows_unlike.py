"""A kernel that rounds rows unlike, on some records only, is noticed: such a pass has one record."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from client.steady import shape_for
from llmchain_fl.core.tasks.base import Output


class OnSome:
    """A task whose losses depend on the place in a pass, for about ``share`` of all records, by ``phase``."""

    def __init__(self, task: Any, share: float, phase: float) -> None:
        self._task, self._share, self._phase, self.forward = task, share, phase, task.forward

    def losses(self, output: Output) -> Tensor:
        plain = self._task.losses(output)
        told = (plain.detach().double() * 1e4 + self._phase).frac() < self._share
        return plain * torch.where(told, 1 + 2.0**-20 * torch.arange(len(plain)), torch.ones(len(plain)))


@pytest.mark.parametrize(("share", "fewest"), [(1.0, 4), (0.4, 4), (0.2, 4), (0.1, 3), (0.0, 0)])
@pytest.mark.part(1)
def test_a_place_that_matters_to_some_records_only_is_noticed(small: Any, share: float, fewest: int) -> None:
    """Of four kernels: one that is unlike for a tenth of all records may by chance be none of those that are tried."""
    task = small.task("classification")
    found = []
    for phase in (0.0, 0.25, 0.5, 0.75):
        task.resident.found.clear()
        found.append(shape_for(task.resident, OnSome(task, share, phase), 48, 6).rows)
    assert set(found) <= {1, 6}
    assert found.count(1) >= fewest
    assert share > 0 or found.count(6) == len(found)
