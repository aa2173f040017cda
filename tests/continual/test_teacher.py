from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.guards import teacher


def outputs(task: Any, state: Any = None) -> torch.Tensor:
    from contextlib import nullcontext

    examples = task.encode(task_rows)
    with torch.no_grad(), task.resident.swapped(state) if state is not None else nullcontext():
        return task.forward(examples, range(len(examples))).logits


task_rows = [{"text": "lost card why"}, {"text": "send money open account"}]


def test_a_teacher_travels_with_its_scale_and_comes_back(small: Any) -> None:
    arrays = small.task().resident.arrays()
    told = teacher.sent("t", arrays, 2.5)
    back, scale = teacher.received("t", {**told, "other.x": np.zeros(1)})  # type: ignore[dict-item]
    assert scale == 2.5
    assert back.keys() == arrays.keys()
    assert teacher.sent("t", {}, 2.5) == {}
    assert teacher.received("t", {}) == ({}, 0.0)


def test_a_teacher_of_the_same_shape_is_its_own_arrays(small: Any) -> None:
    task = small.task()
    arrays = {name: 0.5 * value for name, value in task.resident.arrays().items()}
    for scale in (0.0, task.resident.spec.adapter.scale):
        state = teacher.state_of(task.resident, arrays, scale)
        assert not state.pairs
        with task.resident.swapped(state):
            assert all(np.array_equal(value, arrays[name]) for name, value in task.resident.arrays().items())


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_site_of_another_rank_has_the_same_teacher(small: Any, rank: int) -> None:
    wide = small.task(rank=3)
    arrays, wanted = wide.resident.arrays(), outputs(wide)
    scale = wide.resident.spec.adapter.scale
    site = small.task(rank=rank)
    with pytest.raises(ModelError):
        site.resident.load(arrays)
    found = outputs(site, teacher.state_of(site.resident, arrays, scale))
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(outputs(site), wanted, atol=0.1)


def test_a_site_of_another_alpha_has_the_same_teacher(small: Any) -> None:
    """Read with the site's own scale, the same arrays would be another adapter."""
    task = small.task()
    arrays, wanted = task.resident.arrays(), outputs(task)
    half = {name: value * (0.5 if name.endswith("lora_B") else 1.0) for name, value in arrays.items()}
    state = teacher.state_of(task.resident, half, 2 * task.resident.spec.adapter.scale)
    assert torch.allclose(outputs(task, state), wanted, atol=1e-4)


def test_an_a_that_did_not_travel_is_that_of_the_start_at_any_rank(small: Any) -> None:
    wide = small.task(rank=3)
    arrays = wide.resident.arrays() | {n: v for n, v in wide.resident.fresh().items() if n.endswith("lora_A")}
    wide.resident.load(arrays)
    wanted, scale = outputs(wide), wide.resident.spec.adapter.scale
    sent = {name: value for name, value in arrays.items() if not name.endswith("lora_A")}
    assert torch.allclose(outputs(wide, teacher.state_of(wide.resident, sent, scale)), wanted, atol=1e-5)
    site = small.task(rank=2)
    assert torch.allclose(outputs(site, teacher.state_of(site.resident, sent, scale)), wanted, atol=1e-4)


@pytest.mark.parametrize("rank", [3, 2])
def test_the_fold_of_a_teacher_counts_and_that_of_the_site_does_not(small: Any, rank: int) -> None:
    wide = small.task(rank=3)
    plain, scale = wide.resident.arrays(), wide.resident.spec.adapter.scale
    module = "encoder.layer.0.attention.self.query"
    draw = np.random.default_rng(1)
    fold = {f"{module}.fold_A": draw.normal(size=(2, 32)), f"{module}.fold_B": draw.normal(size=(32, 2))}
    bare = outputs(wide)
    wide.resident.load(fold)
    folded = outputs(wide)
    site = small.task(rank=rank)
    site.resident.load(fold)
    assert torch.allclose(outputs(site, teacher.state_of(site.resident, plain, scale)), bare, atol=1e-4)
    assert torch.allclose(outputs(site, teacher.state_of(site.resident, plain | fold, scale)), folded, atol=1e-4)
    assert not torch.allclose(bare, folded, atol=0.01)


def test_a_trained_head_is_part_of_the_teacher(small: Any) -> None:
    wide = small.task(head="trained", rank=3)
    arrays, wanted, scale = wide.resident.arrays(), outputs(wide), wide.resident.spec.adapter.scale
    site = small.task(head="trained", rank=2, moved=0.7)
    assert torch.allclose(outputs(site, teacher.state_of(site.resident, arrays, scale)), wanted, atol=1e-4)
