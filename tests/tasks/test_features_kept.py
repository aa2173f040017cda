"""Where only the head is trained a record's features are computed once, and are those of a plain pass, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llmchain_fl.core.adapter.resident import BASE, load_resident
from llmchain_fl.core.tasks.passes import Shape, passes
from llmchain_fl.core.work import open_work


@pytest.fixture
def headed(small: Any) -> Any:
    """A task whose head alone is trained, and some records."""
    work = small.work(head="trained", trained=())
    resident, task = open_work(work.resident, work.task)
    resident.focus(())
    resident.reset()
    return task, task.encode(small.rows(7))


def counted(monkeypatch: pytest.MonkeyPatch, task: Any) -> list[int]:
    seen: list[int] = []
    real = task._pooled

    def pooled(examples: Any, index: Any) -> Any:
        seen.extend(index)
        return real(examples, index)

    monkeypatch.setattr(task, "_pooled", pooled)
    return seen


def test_every_record_goes_through_the_base_once_however_often_it_is_drawn(
    headed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, examples = headed
    seen = counted(monkeypatch, task)
    for index in ([0, 1], [1, 2, 3], [0, 3, 6]):
        task.forward(examples, index)
    assert sorted(seen) == [0, 1, 2, 3, 6]


def test_in_fixed_shapes_the_features_are_those_of_a_pass_without_memory(headed: Any) -> None:
    task, examples = headed
    examples.fix(Shape(3, 64))
    for index, count in passes(examples, range(7), 3):
        kept = task._features(examples, index)[:count]
        assert torch.equal(kept, task._pooled(examples, index)[:count])


def test_another_adapter_below_the_head_has_other_features_and_a_new_head_the_same(headed: Any) -> None:
    task, examples = headed
    resident = task.resident
    before = task._features(examples, [0, 1]).clone()
    assert resident.below_head == BASE
    resident.load({"head.bias": resident.arrays(["head.bias"])["head.bias"] + 1.0})
    assert torch.equal(task._features(examples, [0, 1]), before)
    name = next(name for name in resident.shapes if name.endswith("lora_B"))
    resident.load({name: resident.arrays([name])[name] + 0.5})
    assert resident.below_head != BASE
    assert not torch.equal(task._features(examples, [0, 1]), before)


def test_while_a_factor_is_trained_nothing_is_kept(small: Any) -> None:
    work = small.work(head="trained", trained=("lora_B",))
    resident, task = open_work(work.resident, work.task)
    resident.focus(("lora_B",))
    examples = task.encode(small.rows(3))
    task.forward(examples, [0, 1, 2])
    assert resident.below_head == b""
    assert not examples.features
    assert load_resident(work.resident) is resident


def test_runs_of_one_process_share_features_where_somebody_asked_for_it(
    headed: Any, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, examples = headed
    remembered = task.resident.base.remembered
    monkeypatch.setattr(remembered, "limit_mb", 8)
    task.forward(examples, [0, 1])
    again = task.encode(small.rows(7))
    seen = counted(monkeypatch, task)
    task.forward(again, [0, 1, 2])
    assert seen == [2]
