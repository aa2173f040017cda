"""What two texts have to do with each other (the second follows, contradicts, answers the first), over a label list.

Both texts stand in one row, as the tokenizer joins a pair; the vector of the row is pooled, and the head is that of a
classifier of single texts (``classification.py``). Too long a pair loses tokens of its longer text, and counts as cut.
Kinds of token (BERT's 0 and 1) are not told apart: many bases have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.core.tasks.spec import TaskSpec


class PairClassification(Classification):
    """A classifier of pairs of texts."""

    def encode(self, rows: Sequence[Mapping[str, str]]) -> Examples:
        """Rows with ``text`` and ``text2`` (and ``label``)."""
        examples = paired(self.resident.base.tokenizer, rows, self._max_tokens)
        examples.targets = np.array([self._position.get(row.get("label", ""), -1) for row in rows], dtype=np.int64)
        return examples


def paired(tokenizer: Any, rows: Sequence[Mapping[str, str]], max_tokens: int) -> Examples:
    """One row for each record with ``text`` and ``text2`` (without one: the first alone); targets are -1."""
    targets = np.full(len(rows), -1, dtype=np.int64)
    if not rows:
        return Examples([], targets)
    texts = [row["text"] for row in rows], [row.get("text2", "") for row in rows]
    told = tokenizer(*texts, truncation="longest_first", max_length=max_tokens)["input_ids"]
    cut = sum(len(one) > max_tokens for one in tokenizer(*texts, truncation=False)["input_ids"])
    found = [np.array(ids or [tokenizer.pad_token_id or 0], dtype=np.int64) for ids in told]
    return Examples(found, targets, cut=cut)


def build(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec``."""
    numbers = spec.scale, spec.max_tokens, spec.feature_seed
    return PairClassification(resident, dict(spec.labels), spec.pooling, *numbers)
