"""Losses of tasks that answer token by token: a word of a reply, a tag, a word that was taken out.

    loss of a row = sum_t w_t CE(logits_t, target_t) / max(1, sum_t w_t)

| case | result |
|---|---|
| no weight at all | every token counts |
| a row whose weights are all 0 | 0, and its gradient is 0 |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.tasks.base import Output


@contextmanager
def words_at(resident: Resident, places: Tensor) -> Iterator[None]:
    """The base's next words are computed at ``places`` [n, K] alone while this is open: logits [n, K, V]."""
    words: nn.Module | None = resident.base.module.get_output_embeddings()  # type: ignore[operator]

    def some(_layer: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        hidden = given[0]  # of fewer rows where only outputs of frozen layers are computed
        alike = len(hidden) == len(places)
        return (hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[-1])) if alike else hidden[:, :1],)

    assert words is not None, "a base that writes has an output layer"
    hook = words.register_forward_pre_hook(some)
    try:
        yield
    finally:
        hook.remove()


def token_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over a row's own tokens; values [n, T], weight [n, T] -> [n]."""
    weight = torch.ones_like(values) if weight is None else weight
    return (values * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)


class TokenLosses:
    """``losses`` and ``divergence`` of a task whose logits are [n, T, classes]."""

    def losses(self, output: Output) -> Tensor:
        """Mean cross entropy of a row's own tokens, [n]; 0 where it has none."""
        each = F.cross_entropy(output.logits.flatten(0, 1), output.targets.flatten(), reduction="none")
        return token_mean(each.view_as(output.targets), output.weight)

    def divergence(self, output: Output, teacher: Output, temperature: float) -> Tensor:
        """T^2 KL(teacher || student), mean over a row's own tokens, [n]."""
        student = F.log_softmax(output.logits / temperature, dim=-1)
        target = F.log_softmax(teacher.logits / temperature, dim=-1)
        each = F.kl_div(student, target, log_target=True, reduction="none").sum(dim=-1)
        return temperature**2 * token_mean(each, output.weight)
