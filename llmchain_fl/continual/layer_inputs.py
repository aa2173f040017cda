"""Second moments of the inputs of adapted layers on public records: the span that ``slots`` protects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llmchain_fl.continual.subspace import Float
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.tasks.base import Examples, Task

MEMORY = 2**29
"""Bytes of second moments held at once; more layers take more passes over the records."""
BATCH = 32


def second_moments(
    task: Task, examples: Examples, index: Sequence[int], modules: Sequence[str]
) -> Iterator[tuple[str, Float]]:
    """``X^T X`` of each module, one after the other; X: all inputs of the layer, one row a token that is text.

    With the adapter that is loaded, by forward hooks; no gradient. float64, so that small directions are seen.

    Args:
        task: over the resident model.
        examples: public records, encoded by ``task``.
        index: which of them.
        modules: paths of adapted layers.

    Yields:
        (module, d_in x d_in).

    Raises:
        ModelError: a layer that does not take [records, tokens, d_in].

    | case | result |
    |---|---|
    | padding | not counted |
    | no record | zeros |
    | many layers | several passes, the same result |
    """
    sizes = {module: _layer(task, module).in_features for module in modules}
    group: list[str] = []
    for module in modules:
        if group and 8 * sum(sizes[m] ** 2 for m in [*group, module]) > MEMORY:
            yield from _moments(task, examples, index, {m: sizes[m] for m in group})
            group = []
        group.append(module)
    yield from _moments(task, examples, index, {m: sizes[m] for m in group})


def _moments(
    task: Task, examples: Examples, index: Sequence[int], sizes: dict[str, int]
) -> Iterator[tuple[str, Float]]:
    device = task.resident.base.device
    moments = {module: torch.zeros(size, size, dtype=torch.float64, device=device) for module, size in sizes.items()}
    order = sorted(index, key=examples.length)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        mask = examples.batch(batch, 0, device)[1].bool()

        def add(module: str, x: Tensor, mask: Tensor = mask) -> None:
            if x.shape[:-1] != mask.shape:
                text = f"{module} takes inputs of shape {tuple(x.shape)}, not one row for each of {mask.numel()} tokens"
                raise ModelError(text, remedy="name other adapter.targets, or set continual.slots.share = 0")
            rows = x[mask].double()
            moments[module] += rows.T @ rows

        with _watched(task, list(sizes), add), torch.no_grad():
            task.forward(examples, batch)
    for module, moment in moments.items():
        yield module, np.asarray(moment.cpu().numpy())


@contextmanager
def _watched(task: Task, modules: Sequence[str], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    def hook(module: str) -> Callable[[nn.Module, Any], None]:
        return lambda _layer, inputs: see(module, inputs[0].detach())

    hooks = [_layer(task, module).register_forward_pre_hook(hook(module)) for module in modules]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def _layer(task: Task, module: str) -> Any:
    return task.resident.base.module.get_submodule(module)
