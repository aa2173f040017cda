"""From a text's vector to its labels, row by row: what ``core/tasks/classification.py`` computes, for one adapter.

    label-text:  logit_l = scale * h . e_l,   e_l = h(text of l) of the bare base
    trained:     logits  = W f + b,  f = scale * h, with random features behind it where the task has them

Each row is a product of its own, so no row's company enters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.tasks.random_features import RandomFeatures
from llmchain_fl.core.tasks.spec import TaskSpec


@dataclass(frozen=True)
class Head:
    """Of one adapter. ``weight`` [L, D], ``bias`` [L]; ``across`` [M, H]: random features, or None."""

    labels: tuple[str, ...]
    scale: float
    weight: Tensor
    bias: Tensor
    across: Tensor | None = None

    def probabilities(self, vector: Tensor) -> Tensor:
        """softmax of the logits, float32 [L]; ``vector`` [H] at unit length."""
        scaled = self.scale * vector
        if self.across is not None:
            scaled = torch.cat([scaled, (self.across @ scaled).relu()])
        return torch.softmax(self.weight @ scaled + self.bias, dim=-1)

    def best(self, vector: Tensor, count: int) -> list[tuple[str, float]]:
        """The ``count`` most probable labels, most probable first; of equal ones the first in the list."""
        chances = self.probabilities(vector)
        order = torch.sort(chances, descending=True, stable=True).indices[:count].tolist()
        return [(self.labels[place], float(chances[place])) for place in order]


def head_of(task: TaskSpec, arrays: Arrays, label_vectors: Tensor) -> Head:
    """The head of an adapter for ``task``.

    Args:
        arrays: of the adapter; ``head.weight`` and ``head.bias`` where the head is trained.
        label_vectors: [L, H], of the bare base.

    Raises:
        ModelError: a trained head that is missing or of another size.
    """
    names = tuple(name for name, _ in task.labels)
    if not task.head_size:
        return Head(names, task.scale, label_vectors, torch.zeros(len(names)))
    width = label_vectors.shape[1]
    size = (len(names), width + task.features)
    weight, bias = arrays.get("head.weight"), arrays.get("head.bias")
    if weight is None or bias is None or weight.shape != size or bias.shape != (len(names),):
        raise ModelError(f"the trained head is not of {size[0]} x {size[1]} numbers", remedy="publish the adapter anew")
    across = None
    if task.features:
        drawn = RandomFeatures(width, task.features, task.feature_seed).projection()
        across = torch.tensor(drawn.T)
    return Head(names, task.scale, torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy()), across)
