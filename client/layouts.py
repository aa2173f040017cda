"""Per-record gradients beside autograd's, one record at a time: how each layer holds the records of a pass.

A layer gets rows of numbers and not whose they are (the layouts stand in ``client/per_sample.py``). So a pass over
made-up records is taken with each layout, and the arrays compared with what autograd gives each record by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from client.per_sample import LAYOUTS, PerSample
from llmchain_fl.core.adapter.resident import Resident, State
from llmchain_fl.core.errors import TrainingError

CLOSE = 1e-3
"""Largest difference of an array's gradient from autograd's, over its largest entry; more in half precision."""
FLOOR = 1e-5
"""The same over the largest entry of all arrays: of some the gradient is nothing but rounding."""
COMPARED = 3
"""Records of a pass that are compared with autograd."""


@dataclass(frozen=True)
class Layouts:
    """The layouts of one resident.

    Attributes:
        state: the adapter to try it with: passes of unlike numbers of rows are compared, so a gentle one.
        losses: of made-up records, one number each.
    """

    resident: Resident
    state: State
    losses: Callable[[Sequence[int]], Tensor]

    def check(self) -> None:
        """Refuse a layer whose weights are used otherwise than as a linear layer.

        Raises:
            TrainingError: with one record in a pass its gradient is not autograd's.
        """
        wrong = _layers(self.differing(1))
        if wrong:
            raise TrainingError(
                f"{', '.join(sorted(wrong))}: no gradient of each record by itself, as a linear layer gives it",
                remedy=f"name the layers to adapt in adapter.targets: {self._others(wrong)}; or switch privacy off",
            )

    def find(self, count: int) -> set[str]:
        """Tell the resident how each layer holds ``count`` records; the layers where no layout fits."""
        layouts, left = self.resident.layouts, set(self.resident.trained_names)
        for layout in LAYOUTS:
            layouts.update(dict.fromkeys(left, layout))
            left &= self.differing(count)
            if not left:
                break
        for name in left:
            del layouts[name]
        return _layers(left)

    def differing(self, count: int) -> set[str]:
        """The arrays whose rows, in a pass of ``count`` records, are not what autograd gives each record alone."""
        parameters = [self.resident.parameters[name] for name in self.resident.trained_names]
        rows = PerSample(self.resident, count)
        try:
            with self.resident.swapped(self.state):
                computed = rows.computed(count, lambda: self.losses(range(count)).sum().backward())  # type: ignore[no-untyped-call]
                with rows.paused():
                    losses = [self.losses([i]).sum() for i in range(min(count, COMPARED))]
                    alone = [torch.autograd.grad(loss, parameters, materialize_grads=True) for loss in losses]
        finally:
            rows.close()
        near = max(CLOSE, 16 * torch.finfo(next(self.resident.base.module.parameters()).dtype).eps)
        truth = torch.stack([torch.cat([part.reshape(-1) for part in parts]) for parts in alone])
        computed, truth = (values.nan_to_num(7.0, 8.0, 9.0) for values in (computed[: len(alone)], truth))
        away, floor = (computed - truth).abs(), FLOOR * truth.abs().max()
        return rows.mixed | {
            name
            for name, part in rows.slices.items()
            if away[:, part].max() > near * truth[:, part].abs().max() + floor
        }

    def _others(self, wrong: set[str]) -> str:
        factors = [name for name in self.resident.shapes if not name.startswith("head.")]
        return ", ".join(sorted(_layers(factors) - wrong)) or "(none)"


def _layers(names: Iterable[str]) -> set[str]:
    """The last parts of the names of layers, as in ``adapter.targets``, of the arrays ``names``."""
    return {name.rpartition(".")[0].rpartition(".")[2] for name in names}
