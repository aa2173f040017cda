"""How much each entry of W matters to the outputs, from public records: the Fisher information as row and column sums.

    F_ij = E_x E_{y ~ p(y|x)} (d loss(x, y) / d W_ij)^2,      row_i = sum_j F_ij,   col_j = sum_i F_ij

(Kirkpatrick et al. 2017, arXiv 1612.00796, eq. 3.) The gradient of *each record by itself* is squared: the square of a
batch's mean gradient is smaller by about the batch size (measured by others: 1.01 -> 0.13 at 8, 0.04 at 32), so a
strength tuned on it means nothing at another batch size. y is drawn from the model's own outputs: that is the Fisher
information (Kunstner et al. 2019, arXiv 1905.12558, on what labels give instead), and public text needs no labels.

For a record with inputs X [T, d_in] of a layer and gradients D [T, d_out] at its output, G = D^T X, and

    row_i = sum_j G_ij^2 = d_i^T (X X^T) d_i,     col_j = x_j^T (D D^T) x_j            (columns of D and X)

exactly, without G: O(T^2 (d_out + d_in)). Then F ~ row col^T / total, the best rank-1 matrix with these sums (as in
Adafactor, Shazeer & Stern 2018, arXiv 1804.04235, section 3).

Public records and a released adapter only: no epsilon.

================================  =========================================
case                              result
================================  =========================================
a record twice                    the same sums (a mean over records)
a layer that is run twice         the squares of its whole gradient
a prediction that is certain      near 0: nothing there can be forgotten
================================  =========================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llmchain_fl.core.adapter.product import Pair
from llmchain_fl.core.tasks.base import Examples, Output, Task, by_length


def public_fisher(task: Task, examples: Examples, paths: Sequence[str], seed: int, batch: int = 8) -> dict[str, Pair]:
    """Row and column sums of the Fisher information of the adapter that the resident holds now.

    Args:
        task: over the resident model.
        examples: public records; their labels are not looked at.
        paths: adapted modules, and ``head`` for a trained head.
        seed: of the drawn outputs.
        batch: records a pass; changes memory and not what is measured.

    Returns:
        path -> (rows float64 [d_out], columns float64 [d_in]).
    """
    generator = torch.Generator().manual_seed(seed % 2**63)
    totals: dict[str, Pair] = {}
    for index in by_length(examples, batch):
        with _watched(task, paths) as seen:
            output = task.forward(examples, index)
            losses = task.losses(replace(output, targets=drawn(output, generator)))
            outputs = [(path, one) for path in paths for one in seen[path].outputs]
            gradients = torch.autograd.grad(examples.weighted(losses, index).sum(), [one for _, one in outputs])
        for path in paths:
            own = [g for (where, _), g in zip(outputs, gradients, strict=True) if where == path]
            sums = squares(seen[path].inputs, own)
            before = totals.get(path, (np.zeros_like(sums[0]), np.zeros_like(sums[1])))
            totals[path] = (before[0] + sums[0], before[1] + sums[1])
    count = max(1, examples.records)
    return {path: (rows / count, cols / count) for path, (rows, cols) in totals.items()}


def drawn(output: Output, generator: torch.Generator) -> Tensor:
    """One output for each target, int64 like ``output.targets``, drawn from softmax(logits)."""
    chances = torch.softmax(output.logits.detach().double(), dim=-1).cpu()
    draws = torch.multinomial(chances.flatten(0, -2), 1, generator=generator)
    return draws.view(chances.shape[:-1]).to(output.logits.device)


def squares(inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> Pair:
    """Sums over records of a layer's row and column sums of squared per-record gradients.

    Args:
        inputs: one tensor [n, ..., d_in] for each time the layer was run in the pass.
        gradients: at its outputs, [n, ..., d_out], in the same order.
    """
    x = torch.cat([one.reshape(one.shape[0], -1, one.shape[-1]).double() for one in inputs], dim=1)
    d = torch.cat([one.reshape(one.shape[0], -1, one.shape[-1]).double() for one in gradients], dim=1)
    rows = (d * (x @ x.transpose(1, 2) @ d)).sum(dim=(0, 1))
    cols = (x * (d @ d.transpose(1, 2) @ x)).sum(dim=(0, 1))
    return rows.clamp_min(0.0).cpu().numpy(), cols.clamp_min(0.0).cpu().numpy()


@dataclass
class _Seen:
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


@contextmanager
def _watched(task: Task, paths: Sequence[str]) -> Iterator[dict[str, _Seen]]:
    """Keeps what goes into and comes out of the named layers."""
    seen = {path: _Seen() for path in paths}

    def keep(path: str) -> Any:
        def hook(_layer: nn.Module, inputs: Any, output: Tensor) -> None:
            seen[path].inputs.append(inputs[0].detach())
            seen[path].outputs.append(output)

        return hook

    base, head = task.resident.module["base"], task.resident.head
    layers = {path: head if path == "head" and head is not None else base.get_submodule(path) for path in paths}
    hooks = [layer.register_forward_hook(keep(path)) for path, layer in layers.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
