"""Whether a base can read what a task will give it: asked when it is opened, before anybody trains or pays.

==============================================  ======================================================================
compared                                        refused
==============================================  ======================================================================
the tokenizer's words                           none but special tokens: a folder without a tokenizer reads [UNK] alone
the tokenizer's largest id, the embedding       an id without a row: such a text would end in an index error
``max_tokens``, the base's positions            more tokens than positions (RoBERTa's first two are taken by padding,
                                                so near the limit the base is tried on made-up ids)
a tokenizer without any way to pad              no padding token and no end of text
which way the base reads, the task              a causal language model that sees the token it has to say; the vector
                                                of the first token, where it has not seen the rest (a warning where
                                                the mean is taken: a decoder can classify, an encoder does it better)
the label texts, as tokens                      all the same: their vectors are one (a warning with a trained head)
==============================================  ======================================================================

A single record that is too long for the base would otherwise make a site fail in just the rounds that draw it, which
tells the server about one person.
"""

from __future__ import annotations

import logging

import torch

from llmchain_fl.core.base_model import Base
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.first_pass import computed, text_config, token_table
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.tasks.text import token_ids

log = logging.getLogger("llmchain_fl.client")
NEAR = 8
"""Positions that an architecture may take away from its table."""


def check_readable(base: Base, task: TaskSpec) -> None:
    """Refuse a base that cannot read what ``task`` gives it in tokens of its own tokenizer.

    Raises:
        ModelError: see the table of the module.
    """
    if base.tokenizer is None:
        return
    _check_tokenizer(base)
    _check_direction(base, task)
    _check_length(base, task.max_tokens)
    _check_labels(base, task)


def _check_tokenizer(base: Base) -> None:
    vocabulary, table = base.tokenizer.get_vocab(), token_table(base.module)
    if len(vocabulary.keys() - set(base.tokenizer.all_special_tokens)) < 2:
        raise ModelError(
            f"the tokenizer of {base.public_name} knows no words: every text is [UNK] to it",
            remedy="put the base's tokenizer files into its folder (tokenizer.save_pretrained)",
        )
    largest = max(vocabulary.values())
    if table is not None and largest >= table.num_embeddings:
        raise ModelError(
            f"the tokenizer of {base.public_name} has token ids up to {largest}, the base reads ids below "
            f"{table.num_embeddings}",
            remedy="give the base its own tokenizer, or a base whose embedding was resized to it",
        )
    if base.tokenizer.pad_token_id is None:
        raise ModelError(
            f"the tokenizer of {base.public_name} has neither a padding token nor an end of text",
            remedy="set pad_token in its tokenizer_config.json",
        )


def _check_direction(base: Base, task: TaskSpec) -> None:
    writes = task_kind(task.kind).base_kind != "encoder"
    if writes and base.sees_ahead:
        raise ModelError(
            f"{base.public_name} sees the words that follow: as a language model it would learn to copy them",
            remedy="use a decoder (Llama, Qwen, GPT-2 ...), or an encoder like this one for classification",
        )
    if writes or base.sees_ahead is not False:
        return
    if task.pooling == "cls":
        raise ModelError(
            f"{base.public_name} reads from left to right: its first token has seen nothing of the text",
            remedy='set task.pooling = "mean", or use an encoder (BERT, RoBERTa ...)',
        )
    log.warning("%s reads from left to right; an encoder of its size usually classifies better", base.public_name)


def _check_labels(base: Base, task: TaskSpec) -> None:
    if len(task.labels) < 2:
        return
    texts = token_ids(base.tokenizer, [text for _, text in task.labels], task.max_tokens)
    if len({text.tobytes() for text in texts}) > 1:
        return
    if not task.head_size:
        raise ModelError(
            f"the tokenizer of {base.public_name} reads all {len(texts)} labels as the same tokens",
            remedy="give the labels texts in the base's language, or the base its own tokenizer",
        )
    log.warning("the tokenizer of %s reads all labels as the same tokens: is it the base's own?", base.public_name)


def _check_length(base: Base, max_tokens: int) -> None:
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
    limit = getattr(text_config(base.module), "max_position_embeddings", None)
    limits = [limit] if isinstance(limit, int) and limit > 0 else []
    for name, table in base.module.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(table, torch.nn.Embedding):
            limits.append(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
    return min(limits, default=None)


def _reads(base: Base, length: int) -> bool:
    if base.device.type != "cpu":  # an index error there ends the whole process
        return length <= (_positions(base) or length)
    ids = torch.full((1, length), int(base.tokenizer.pad_token_id == 0), device=base.device)
    try:
        with torch.no_grad():
            computed(base.module, ids, torch.ones_like(ids))
    except (IndexError, RuntimeError, ValueError):
        return False
    return True
