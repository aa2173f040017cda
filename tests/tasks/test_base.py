from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.tasks.base import Examples, by_length
from llmchain_fl.core.tasks.spec import BASE_KIND, COLUMNS, TASKS, TaskSpec
from llmchain_fl.core.tasks.text import token_ids

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def examples_of(lengths: list[int]) -> Examples:
    return Examples([np.arange(1, size + 1) for size in lengths], np.zeros(len(lengths), dtype=np.int64))


@given(LENGTHS, st.data())
def test_a_batch_is_padded_on_the_right_and_masked(lengths: list[int], data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=6))
    ids, mask = examples_of(lengths).batch(index, 77, torch.device("cpu"))
    assert ids.shape == mask.shape == (len(index), max(lengths[i] for i in index))
    for row, i in enumerate(index):
        assert ids[row].tolist() == list(range(1, lengths[i] + 1)) + [77] * (ids.shape[1] - lengths[i])
        assert mask[row].tolist() == [1] * lengths[i] + [0] * (ids.shape[1] - lengths[i])


@given(LENGTHS, st.integers(1, 5))
def test_batches_by_length_hold_every_record_once(lengths: list[int], size: int) -> None:
    batches = by_length(examples_of(lengths), size)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) <= size for batch in batches)
    order = [lengths[i] for batch in batches for i in batch]
    assert order == sorted(order)


def test_tokens_are_counted_with_repeats() -> None:
    examples = examples_of([2, 5, 3])
    assert (len(examples), examples.length(1), examples.tokens([1, 1, 2])) == (3, 5, 13)


def test_a_text_without_tokens_becomes_one_padding_token(small: Any) -> None:
    tokenizer = small.task("causal-lm").resident.base.tokenizer
    assert [len(ids) for ids in token_ids(tokenizer, ["", "card pin"], 5, special=False)] == [1, 2]
    assert token_ids(tokenizer, [""], 5, special=False)[0].tolist() == [2]
    assert token_ids(tokenizer, [], 5) == []


def test_every_kind_has_columns_and_a_kind_of_base() -> None:
    assert set(TASKS) == set(COLUMNS) == set(BASE_KIND)


@pytest.mark.parametrize(
    ("kind", "head", "size"),
    [("classification", "trained", 2), ("classification", "label-text", 0), ("causal-lm", "trained", 0)],
)
def test_only_a_trained_head_has_a_size(kind: str, head: str, size: int) -> None:
    assert TaskSpec(kind, head, (("a", "x"), ("b", "y"))).head_size == size
