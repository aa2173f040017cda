from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.tasks.base import Examples, by_length
from llmchain_fl.core.tasks.classification import POOLINGS
from llmchain_fl.core.tasks.kind import TASKS, TaskKind, task_kind
from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.core.tasks.spec import TaskSpec
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


@pytest.mark.parametrize("name", TASKS)
def test_every_kind_here_is_sound_and_scores_what_it_declares(name: str, small: Any) -> None:
    kind, task = task_kind(name), small.task(name)
    assert kind.faults() == []
    assert list(task.score(task.encode([small.record(name, 2)]))) == [metric.name for metric in task.metrics]
    assert task.metrics == kind.metrics


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"columns": ()}, "columns"),
        ({"base_kind": "decoder"}, "base_kind"),
        ({"metrics": ()}, "metrics"),
        ({"metrics": (Metric("error", "lower"),)}, "bound"),
    ],
)
def test_a_kind_that_cannot_work_says_why(wrong: dict[str, Any], word: str) -> None:
    sound = {"columns": ("text",), "base_kind": "encoder", "metrics": (Metric("hits", "higher", bound=1.0),)}
    assert TaskKind(**sound, build="x:y").faults() == []  # type: ignore[arg-type]
    (fault,) = TaskKind(**(sound | wrong), build="x:y").faults()  # type: ignore[arg-type]
    assert word in fault


def test_a_spec_names_a_kind_that_is_here_and_a_pooling() -> None:
    assert "kind" in TaskSpec("clasification").faults()[0]
    labels = (("a", "x"),)
    assert all(TaskSpec("classification", labels=labels, pooling=name).faults() == [] for name in POOLINGS)
    assert TaskSpec("classification", pooling="last", labels=labels).faults()
    assert "labels" in TaskSpec("classification").faults()[0]


@pytest.mark.parametrize(
    ("kind", "head", "size"),
    [("classification", "trained", 2), ("classification", "label-text", 0), ("causal-lm", "trained", 0)],
)
def test_only_a_trained_head_has_a_size(kind: str, head: str, size: int) -> None:
    assert TaskSpec(kind, head, (("a", "x"), ("b", "y"))).head_size == size
