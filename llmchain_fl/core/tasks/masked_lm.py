"""Continued pre-training of an encoder: say the words that were taken out of a text (Devlin et al. 2019, section 3.1).

Of the n tokens of a row that are text, m = max(1, round(0.15 n)) are chosen; a chosen one is the mask in 8 of 10 cases,
a token drawn from the vocabulary in 1, itself in 1. What is chosen and drawn is a function of the row's own tokens and
of a public seed (SHA-256 of both seeds PCG64), the same in every round: no other record and no counter has a say in it.

    z = E (scale x h / |h|) / s,    E: the base's own token vectors, s: the mean of their lengths; h: its output

so nothing beside the adapter is trained, and no head of a certain library's checkpoint is asked for. Loss of a record:
the mean cross entropy over all of its chosen tokens, in whatever rows they stand.

| case | result |
|---|---|
| a text without tokens (empty, control characters) | nothing is chosen: loss 0, weight as of one token |
| a text of one token | this token is chosen |
| a tokenizer without a mask | refused when the task is opened |
| rows of no text (made-up ones) | their first tokens count as chosen, token 0 as the right one |
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.by_row import by_row
from llmchain_fl.core.errors import ConfigError, ModelError
from llmchain_fl.core.first_pass import token_table
from llmchain_fl.core.tasks.base import Examples, Numbers, Output, Task
from llmchain_fl.core.tasks.by_token import TokenLosses, token_mean
from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.core.tasks.passes import each_record
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.tasks.windows import in_windows

SHARE, MASKED, DRAWN = 0.15, 0.8, 0.9
"""Of the tokens chosen; of a draw below MASKED it is the mask, below DRAWN another token."""


class MaskedLM(TokenLosses):
    """Scores are the loss (nats a chosen token), perplexity, and the share of chosen tokens that are said rightly.

    A note: of each token of a row the right one where it is chosen, else -1.
    """

    metrics: tuple[Metric, ...]
    counts: float = 0.0

    def __init__(self, resident: Resident, spec: TaskSpec) -> None:
        self.resident, self._spec = resident, spec
        tokenizer, table = resident.base.tokenizer, token_table(resident.base.module)
        if getattr(tokenizer, "mask_token_id", None) is None or table is None:
            raise ModelError(
                f"{resident.base.public_name} has no mask token, or no table of token vectors",
                remedy='use an encoder that was trained with masks (BERT, RoBERTa ...), or task.kind = "plain-text"',
            )
        self._mask, self._special = int(tokenizer.mask_token_id), np.array(tokenizer.all_special_ids, dtype=np.int64)
        weight = table.weight.detach().float()
        self._table = weight / weight.norm(dim=1).mean()

    def encode(self, rows: Sequence[Mapping[str, str]]) -> Examples:
        """Rows with ``text``, some of their tokens taken out."""
        texts = [row["text"] for row in rows]
        examples = in_windows(self.resident.base.tokenizer, texts, self._spec.max_tokens, self._spec.windows)
        told = [self.masked(ids) for ids in examples.ids]
        examples.ids, examples.notes = [ids for ids, _ in told], [note for _, note in told]
        if examples.owner is not None:
            counts = np.array([max(1, int((note >= 0).sum())) for note in examples.notes], dtype=np.float64)
            totals = np.bincount(examples.owner, weights=counts)
            examples.weights = (counts / totals[examples.owner]).astype(np.float32)
        return examples

    def masked(self, ids: Numbers) -> tuple[Numbers, Numbers]:
        """(the tokens with some taken out, the right ones at these places, -1 elsewhere)."""
        key = hashlib.sha256(f"{self._spec.feature_seed}/mask/".encode() + ids.astype("<i8").tobytes()).digest()
        draw = np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "little")))
        text = np.flatnonzero(~np.isin(ids, self._special))
        chosen = np.sort(draw.permutation(text)[: _count(len(text))])
        found, note = ids.copy(), np.full(len(ids), -1, dtype=np.int64)
        note[chosen] = ids[chosen]
        how, other = draw.random(len(chosen)), draw.integers(0, len(self._table), size=len(chosen))
        found[chosen] = np.where(how < MASKED, self._mask, np.where(how < DRAWN, other, ids[chosen]))
        return found, note

    def forward(self, examples: Examples, index: Sequence[int]) -> Output:
        """Logits [n, K, V] at the chosen tokens alone, K those that a row of this length has at most; weight [n, K]."""
        ids, mask = examples.batch(index, self.resident.base.tokenizer.pad_token_id or 0, self.resident.base.device)
        note = torch.from_numpy(examples.noted(index, ids.shape[1], -1)).to(ids.device)
        chosen = (note >= 0) & (mask == 1)
        at = torch.argsort((~chosen).int(), dim=1, stable=True)[:, : _count(ids.shape[1])]
        fixed = examples.shape is not None
        hidden = self.resident.forward(ids, mask, examples.frozen_outputs, index, fixed=fixed).last_hidden_state.float()
        vectors = hidden.gather(1, at[:, :, None].expand(-1, -1, hidden.shape[-1]))
        logits = by_row(self._spec.scale * F.normalize(vectors, dim=-1), self._table)
        return Output(logits, note.gather(1, at).clamp_min(0), chosen.gather(1, at).float())

    def score(self, examples: Examples, batch: int = 32) -> dict[str, float]:
        """Over all chosen tokens of all records."""
        losses, right, counts = each_record(examples, batch, lambda index: self._three(examples, index), 3)
        total = max(1.0, float(counts.sum()))
        loss = float((losses * counts).sum() / total)
        return {
            "loss": loss,
            "perplexity": float(np.exp(min(loss, 50.0))),
            "masked_accuracy": float((right * counts).sum() / total),
        }

    def record_scores(self, examples: Examples, batch: int = 32) -> npt.NDArray[np.float64]:
        """Mean loss of each record's chosen tokens, [records]."""
        return examples.by_record(each_record(examples, batch, lambda index: self._three(examples, index)[:1])[0])

    def _three(self, examples: Examples, index: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, share said rightly, and number of the chosen tokens of each row."""
        output = self.forward(examples, index)
        right = (output.logits.argmax(dim=-1) == output.targets).float()
        count = torch.zeros(len(index)) if output.weight is None else output.weight.sum(dim=1)
        return self.losses(output), token_mean(right, output.weight), count

    def predict(self, texts: Sequence[str], top: int = 3) -> list[list[tuple[str, float]]]:
        """The likeliest words for the first mask of each text.

        Raises:
            ConfigError: a text without a mask.
        """
        tokenizer, answers = self.resident.base.tokenizer, []
        for number, text in enumerate(texts, 1):
            examples = in_windows(tokenizer, [text], self._spec.max_tokens, 1)
            places = np.flatnonzero(examples.ids[0] == self._mask)
            if not len(places):
                raise ConfigError([f"text {number} holds no {tokenizer.mask_token} for the word to be found"])
            examples.notes = [np.where(np.arange(len(examples.ids[0])) == places[0], 0, -1)]
            with torch.no_grad():
                best = F.softmax(self.forward(examples, [0]).logits[0, 0], dim=-1).topk(top)
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            answers.append([(tokenizer.decode([token]).strip(), chance) for token, chance in pairs])
        return answers


def _count(tokens: int) -> int:
    """How many of so many tokens are chosen."""
    return max(1, round(SHARE * tokens)) if tokens else 0


def build(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec``."""
    return MaskedLM(resident, spec)
