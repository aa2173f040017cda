"""An encoder with a decoder behind it (T5, BART, Marian): its stacks of layers, and which way it reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from llmchain_fl.core.errors import ModelError


def stacks(module: Any, remedy: str) -> list[tuple[str, nn.ModuleList]]:
    """Name and list of the transformer layers of the encoder, and of the decoder: of each the list with most weights.

    How many layers each has stands under names of their own in each architecture.

    Raises:
        ModelError: one of them has no list of layers.
    """
    names = {id(part): name for name, part in module.named_modules()}
    halves = []
    for half in (module.get_encoder(), module.get_decoder()):
        lists = [
            (name, part)
            for name, part in half.named_modules()
            if isinstance(part, nn.ModuleList) and all([*block.children()] for block in part)
        ]
        if not lists:
            raise ModelError(f"{type(half).__name__} has no list of equal transformer layers", remedy=remedy)
        name, stack = max(lists, key=lambda one: sum(weight.numel() for weight in one[1].parameters()))
        halves.append((f"{names[id(half)]}.{name}", stack))
    return halves


def moved(module: Any, ids: Tensor, alike: float) -> tuple[Tensor, Tensor]:
    """(the output for one text, how far its first token's moves with the last token that the decoder has said).

    ``alike``: a move below this share of the largest output is none. The second is [2, V]: 0 behind a causal mask.
    """
    changed = torch.cat([ids[:, :-1], ids[:, :1]], dim=1)
    with torch.no_grad():
        whole, other = (
            module(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=said).logits
            for said in (ids, changed)
        )
    away = (whole - other)[:, 0].abs()
    return whole, torch.where(away > alike * whole.abs().max(), away, 0.0).expand(2, -1)
