"""Long texts as several rows: windows of at most ``max_tokens`` tokens, each with the ends that the tokenizer puts on.

==============================================  ======================================================
a text                                          rows
==============================================  ======================================================
of at most ``max_tokens`` tokens, or empty      one, the same as without windows
longer, and ``most`` is 1                       one, cut; counted in ``cut``
longer                                          as many as it needs, at most ``most``; what is left then
                                                is cut, and the text counted
of a tokenizer without offsets (not fast)       one; cut where longer
==============================================  ======================================================

What a text's rows are follows from this text and public constants alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llmchain_fl.core.tasks.base import Examples, Numbers
from llmchain_fl.core.tasks.text import token_ids


def in_windows(tokenizer: Any, texts: Sequence[str], max_tokens: int, most: int, overlap: int = 0) -> Examples:
    """Rows of each text with equal weights, so that a record's loss is the mean over its windows; targets are -1.

    Args:
        tokenizer: of the base.
        texts: one a record.
        max_tokens: of a row, ends included.
        most: rows of a record.
        overlap: tokens that two neighbouring rows of a text have in common.
    """
    if not texts:
        return rows_with([], [], np.zeros(0, dtype=np.int64))
    if not getattr(tokenizer, "is_fast", False):
        lengths = [len(ids) for ids in tokenizer(list(texts), truncation=False)["input_ids"]]
        found = [[ids] for ids in token_ids(tokenizer, texts, max_tokens)]
        return of_records(found, cut=sum(length > max_tokens for length in lengths))
    told = tokenizer(
        list(texts), truncation=True, max_length=max_tokens, return_overflowing_tokens=True, stride=overlap
    )
    parts: list[list[Numbers]] = [[] for _ in texts]
    over = [0] * len(texts)
    for ids, text in zip(told["input_ids"], told["overflow_to_sample_mapping"], strict=True):
        if len(parts[text]) < most:
            parts[text].append(np.asarray(ids or [tokenizer.pad_token_id or 0], dtype=np.int64))
        else:
            over[text] = 1
    return of_records(parts, cut=sum(over))


def of_records(parts: Sequence[Sequence[Numbers]], cut: int = 0) -> Examples:
    """Rows of each record, of equal weights that sum to 1; targets are -1."""
    counts = np.array([len(rows) for rows in parts], dtype=np.int64)
    ids = [row for rows in parts for row in rows]
    return rows_with(ids, [1.0 / count for count in counts for _ in range(count)], counts, cut)


def rows_with(ids: list[Numbers], weights: Sequence[float], counts: npt.NDArray[np.int64], cut: int = 0) -> Examples:
    """Examples of these rows; owners and weights are told only where some record has several rows."""
    targets = np.full(len(ids), -1, dtype=np.int64)
    if len(ids) == len(counts):
        return Examples(ids, targets, cut=cut)
    owner = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    return Examples(ids, targets, owner=owner, weights=np.asarray(weights, dtype=np.float32), cut=cut)
