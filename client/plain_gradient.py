"""The gradient of one step without privacy; loaded where a round has no plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from client.gradients import LossFn
from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.privacy.units import Batch
from llmchain_fl.core.tasks.base import Examples


def chunks(index: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """``index`` in pieces of at most ``size``."""
    for start in range(0, len(index), size):
        yield index[start : start + size]


class PlainGradient:
    """g = sum_i grad loss_i. Records' losses are summed, so micro-batches add up exactly."""

    def __init__(self, resident: Resident, examples: Examples, micro_batch: int) -> None:
        self._resident, self._examples, self._micro = resident, examples, micro_batch
        self.unusable = 0.0

    def __call__(self, batch: Batch, loss: LossFn) -> Tensor:
        """Sum of gradients; zeros for an empty batch (no forward pass)."""
        like = sorted(batch, key=lambda unit: max(map(self._examples.length, unit)))  # like lengths together
        parameters = [self._resident.parameters[name] for name in self._resident.trained_names]
        total = torch.zeros_like(self._resident.trained)
        for part in chunks(_flat(like), self._micro):
            gradients = torch.autograd.grad(loss(part).sum(), parameters, materialize_grads=True)
            total += torch.cat([g.reshape(-1) for g in gradients])
        return total

    def paused(self) -> AbstractContextManager[None]:
        """Nothing to put aside."""
        return nullcontext()


def _flat(batch: Batch) -> list[int]:
    return [int(record) for unit in batch for record in unit]
