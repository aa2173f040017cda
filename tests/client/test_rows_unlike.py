"""A kernel that rounds rows unlike, on some records only, is noticed: such a pass has one record."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from client.steady import shape_for
from llmchain_fl.core.tasks.base import Output


class OnSome:
    """A task whose losses depend on the place in a pass, for about ``share`` of all records."""

    def __init__(self, task: Any, share: float) -> None:
        self._task, self._share, self.forward = task, share, task.forward

    def losses(self, output: Output) -> Tensor:
        plain = self._task.losses(output)
        told = (plain.detach().double() * 1e4).frac() < self._share
        return plain * torch.where(told, 1 + 2.0**-20 * torch.arange(len(plain)), torch.ones(len(plain)))


@pytest.mark.parametrize(("share", "rows"), [(1.0, 1), (0.4, 1), (0.2, 1), (0.1, 1), (0.0, 6)])
def test_a_place_that_matters_to_some_records_only_is_noticed(small: Any, share: float, rows: int) -> None:
    task = small.task("classification")
    task.resident.found.clear()
    assert shape_for(task.resident, OnSome(task, share), 48, 6).rows == rows
