"""Which tokens an answer came from: integrated gradients of the embeddings (captum; the extra ``attribution``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.first_pass import token_table
from llmchain_fl.extras import need

if TYPE_CHECKING:
    from llmchain_fl.core.tasks.classification import Classification

Places = NDArray[np.int64]
Pool = Callable[[Tensor, Tensor], Tensor]
STEPS, ONCE = 64, 16
PARTS = (0.1, 0.2, 0.5)
"""Shares of the tokens that are taken out, or left alone."""


def attribution(
    task: Classification, texts: Sequence[str], pool: Pool, seed: int = 1, steps: int = STEPS
) -> dict[str, Any]:
    """What integrated gradients say of the likeliest label, and whether that is so.

        a_t = sum_d (e_td - b_td) integral_0^1 d logit / d e_td (b + u (e - b)) du,   b: the padding token's embedding

    (Sundararajan et al. 2017, arXiv 1703.01365; summed over tokens it is logit(e) - logit(b): completeness.) Reported:

    | key | is |
    |---|---|
    | ``completeness_error`` | median over texts of |sum a - (logit(e) - logit(b))| / |logit(e) - logit(b)| |
    | ``comprehensiveness`` | mean fall of the label's probability when the top tokens are padded out, over ``PARTS`` |
    | ``comprehensiveness_random`` | the same with tokens drawn by chance: a faithful attribution is above it |
    | ``sufficiency`` | mean fall when all but the top tokens are padded out (DeYoung et al. 2020): lower is better |

    Special tokens are never taken out. Texts are not in the result. ``pool``: the task's pooling (``POOLINGS``).

    Raises:
        ConfigError: captum is not installed.
        ModelError: the base has no table of token embeddings.
    """
    need("attribution", "attribution")
    model = _Asked(task, pool)
    rows = [model.ids(text) for text in texts]
    rows = [row for row in rows if row.shape[1] > 2]
    draw, errors, falls, by_chance, left = (
        np.random.default_rng(seed),
        list[float](),
        list[float](),
        list[float](),
        list[float](),
    )
    for ids in rows:
        logits = model.logits(ids)
        best = int(logits.argmax())
        weights, gap = model.weights(ids, best, steps)
        errors.append(abs(float(weights.sum()) - gap) / max(abs(gap), 1e-6))
        inner = model.inner(ids)
        order, any_order = inner[np.argsort(-weights[inner])], draw.permutation(inner)
        whole = float(torch.softmax(logits, -1)[best])
        for part in PARTS:
            count = max(1, round(part * len(inner)))
            falls.append(whole - model.chance(ids, best, order[:count]))
            by_chance.append(whole - model.chance(ids, best, any_order[:count]))
            left.append(whole - model.chance(ids, best, order[count:]))
    if not rows:
        return {"texts": 0}
    return {
        "texts": len(rows), "steps": steps, "completeness_error": float(np.median(errors)),
        "comprehensiveness": float(np.mean(falls)), "comprehensiveness_random": float(np.mean(by_chance)),
        "sufficiency": float(np.mean(left)),
    }  # fmt: skip


@dataclass(frozen=True)
class _Asked:
    """A classifier, asked with gradients down to the embeddings."""

    task: Classification
    pool: Pool

    @property
    def pad(self) -> int:
        return int(self.task.resident.base.tokenizer.pad_token_id or 0)

    def ids(self, text: str) -> Tensor:
        """int64 [1, tokens]; of several windows the first."""
        return torch.from_numpy(self.task.encode([{"text": text}]).ids[0])[None].to(self.task.resident.base.device)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [n, L] by the base as a whole: no frozen output from before, which would have no gradient."""
        mask, resident = torch.ones_like(ids), self.task.resident
        with resident.router.choosing(mask):
            hidden = resident.base.module(input_ids=ids, attention_mask=mask).last_hidden_state
        return self.task.logits(F.normalize(self.pool(hidden, mask), dim=-1))

    def logits(self, ids: Tensor) -> Tensor:
        with torch.no_grad():
            return self.forward(ids)[0]

    def inner(self, ids: Tensor) -> Places:
        """Where no special token stands."""
        special = set(self.task.resident.base.tokenizer.all_special_ids)
        places = [place for place, token in enumerate(ids[0].tolist()) if token not in special]
        return np.array(places or range(ids.shape[1]), dtype=np.int64)

    def chance(self, ids: Tensor, label: int, out: Places) -> float:
        """Of a label with tokens padded out."""
        changed = ids.clone()
        changed[0, torch.from_numpy(out).to(ids.device)] = self.pad
        return float(torch.softmax(self.logits(changed), -1)[label])

    def weights(self, ids: Tensor, label: int, steps: int) -> tuple[NDArray[np.float64], float]:
        """(a [tokens], logit(e) - logit(b)) of one text."""
        from captum.attr import LayerIntegratedGradients

        table = token_table(self.task.resident.base.module)
        if table is None:
            raise ModelError("this base has no table of token embeddings", remedy="leave attribution out")
        bare = ids.clone()
        bare[0, torch.from_numpy(self.inner(ids)).to(ids.device)] = self.pad
        gradients = LayerIntegratedGradients(lambda tokens: self.forward(tokens)[:, label], table)
        parts = gradients.attribute(ids, bare, n_steps=steps, internal_batch_size=ONCE)
        gap = float(self.logits(ids)[label] - self.logits(bare)[label])
        return parts.sum(dim=-1)[0].detach().double().cpu().numpy(), gap
