"""A site's sums over each label's records: what they are, of whom, and that no head that is sent changes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.class_sums import class_sums, inner_of
from client.rounds import SUMS, loop_of
from llmchain_fl.core.errors import WireError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.tasks.spec import StageLabels
from llmchain_fl.core.work import GuardSpec, TrainSpec

COUNT = 6
SPEC = TrainSpec(1, 0.5, 4.0, 4, "adam", 0.9, 1, method="lockstep")
PLAIN = SiteGuards((), {})


@pytest.fixture(scope="module")
def task(small: Any) -> Any:
    return small.task(head="trained", trained=(), moved=0.0)


def inputs(task: Any, examples: Any) -> Any:
    """h of each record, by the vectors that the task serves: scale x pooled / its length."""
    with torch.no_grad():
        pooled = task.vectors(examples, range(COUNT))
    return 20.0 * pooled / pooled.norm(dim=1, keepdim=True)


def test_a_round_brings_for_each_label_the_sum_of_its_records_inputs(small: Any, task: Any) -> None:
    rows = small.rows(COUNT)
    examples = task.encode(rows)
    result = class_sums(task, examples, [small.units(range(COUNT))], SPEC, None, PLAIN, 0.1)
    expected = np.zeros((len(small.labels), task.resident.shapes["head.weight"][1]), np.float32)
    for row, h in zip(rows, inputs(task, examples), strict=True):
        expected[list(small.labels).index(row["label"])] += h.numpy() / 4.0
    assert result.direct
    assert result.arrays["head.weight"] == pytest.approx(expected, abs=1e-4)
    counts = [sum(row["label"] == label for row in rows) / 4.0 for label in small.labels]
    assert result.arrays["head.bias"] == pytest.approx(counts)


@given(st.integers(0, 2**31), st.floats(0.01, 1e4))
def test_no_head_that_is_sent_changes_what_a_person_adds(small: Any, task: Any, seed: int, size: float) -> None:
    examples, work = small.fixed(task.encode(small.rows(COUNT))), small.work(train={"steps": 1})
    plan, batch = small.plan(work, noise_multiplier=0.0), [small.units(range(COUNT))]
    before = class_sums(task, examples, batch, SPEC, plan, PLAIN, 0.1).arrays
    kept = task.resident.theta.clone()
    task.resident.theta += size * torch.randn(kept.shape, generator=torch.Generator().manual_seed(seed))
    after = class_sums(task, examples, batch, SPEC, plan, PLAIN, 0.1).arrays
    task.resident.theta.copy_(kept)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_under_a_mask_records_of_other_labels_add_nothing(small: Any, task: Any) -> None:
    rows = small.rows(COUNT)
    examples = task.encode(rows)
    guards = SiteGuards((GuardSpec("mask", (("others", 0.0),)),), {}, StageLabels((0, 1)))
    result = class_sums(task, examples, [small.units(range(COUNT))], SPEC, None, guards, 0.1)
    every = class_sums(task, examples, [small.units(range(COUNT))], SPEC, None, PLAIN, 0.1)
    assert np.array_equal(result.arrays["head.weight"][:2], every.arrays["head.weight"][:2])
    assert not result.arrays["head.weight"][2:].any()
    assert every.arrays["head.weight"][2:].any()


def test_a_task_without_one_label_a_record_is_refused(small: Any) -> None:
    texts = small.task("plain-text")
    examples = texts.encode(small.rows(2, "plain-text"))
    with pytest.raises(WireError, match="one label each"):
        inner_of(texts, examples, PLAIN)([0, 1])


def test_the_method_of_a_task_names_it() -> None:
    assert loop_of(SUMS) is class_sums
