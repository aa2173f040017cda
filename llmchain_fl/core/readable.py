"""Whether a base can read what a task will give it: asked when it is opened, before anybody trains or pays.

==============================================  ======================================================================
compared                                        refused
==============================================  ======================================================================
the tokenizer's largest id, the embedding       an id without a row: such a text would end in an index error
``max_tokens``, the base's positions            more tokens than positions (RoBERTa's first two are taken by padding,
                                                so near the limit the base is tried on made-up ids)
a tokenizer without any way to pad              no padding token and no end of text
==============================================  ======================================================================

A single record that is too long for the base would otherwise make a site fail in just the rounds that draw it, which
tells the server about one person.
"""

from __future__ import annotations

import torch

from llmchain_fl.core.base_model import Base
from llmchain_fl.core.errors import ModelError

NEAR = 8
"""Positions that an architecture may take away from its table."""


def check_readable(base: Base, max_tokens: int) -> None:
    """Refuse a base that cannot read ``max_tokens`` tokens of its own tokenizer.

    Raises:
        ModelError: see the table of the module.
    """
    if base.tokenizer is None:
        return
    table = getattr(base.module, "get_input_embeddings", lambda: None)()
    rows = getattr(table, "num_embeddings", None)
    largest = max(base.tokenizer.get_vocab().values(), default=0)
    if rows is not None and largest >= rows:
        raise ModelError(
            f"the tokenizer of {base.public_name} has token ids up to {largest}, the base reads ids below {rows}",
            remedy="give the base its own tokenizer, or a base whose embedding was resized to it",
        )
    if base.tokenizer.pad_token_id is None:
        raise ModelError(
            f"the tokenizer of {base.public_name} has neither a padding token nor an end of text",
            remedy="set pad_token in its tokenizer_config.json",
        )
    positions = _positions(base)
    if positions is None or max_tokens <= positions - NEAR:
        return
    if max_tokens > positions or not _reads(base, max_tokens):
        most = next((n for n in range(positions, max(0, positions - NEAR), -1) if _reads(base, n)), positions - NEAR)
        raise ModelError(
            f"{base.public_name} reads at most {most} tokens, model.max_tokens is {max_tokens}",
            remedy=f"set model.max_tokens = {most} or less: longer texts are then cut",
        )


def _positions(base: Base) -> int | None:
    """Most tokens by configuration and table, where the base has a limit; what padding takes of the table is off."""
    told = getattr(base.module.config, "max_position_embeddings", None)
    found = [told] if isinstance(told, int) and told > 0 else []
    for name, table in base.module.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(table, torch.nn.Embedding):
            found.append(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
    return min(found, default=None)


def _reads(base: Base, length: int) -> bool:
    if base.device.type != "cpu":  # an index error there ends the whole process
        return length <= (_positions(base) or length)
    ids = torch.full((1, length), int(base.tokenizer.pad_token_id == 0), device=base.device)
    try:
        with torch.no_grad():
            base.module(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (IndexError, RuntimeError, ValueError):
        return False
    return True
