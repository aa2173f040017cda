"""The guard that trains each stage over its own labels: its loss, its place in a step, and the rows it puts back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from client.gradients import gradient_of
from client.local import train_round
from llmchain_fl.core.errors import WireError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.guards.mask import restricted
from llmchain_fl.core.tasks.base import Output
from llmchain_fl.core.tasks.spec import StageLabels, TaskSpec
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.guards.mask import MaskServer

COUNT = 5
MASK = GuardSpec("mask", (("others", 0.0),))
LABELS = st.sets(st.integers(0, COUNT - 1), min_size=1).map(lambda found: tuple(sorted(found)))
SHARES = st.just(0.0) | st.floats(1e-6, 1)
FINITE = st.floats(-30, 30, width=32)
ANY = st.floats(width=32, allow_nan=True, allow_infinity=True)


def losses(
    rows: Sequence[Sequence[float]], targets: Sequence[int], labels: StageLabels | None, others: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the loss of each record, the gradient of each logit); ``labels`` None: nothing is masked."""
    logits = torch.tensor(rows, dtype=torch.float32, requires_grad=True)
    output = Output(logits, torch.tensor(targets))
    output = output if labels is None else restricted(output, labels, others)
    loss = F.cross_entropy(output.logits, output.targets, reduction="none")
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    return loss.detach(), logits.grad


def by_hand(row: Sequence[float], target: int, among: Sequence[int], others: float) -> tuple[float, list[float]]:
    """(-z_y + log of the sum of exp z over ``among``, and of the others' shares; its gradient), in Python's numbers."""
    highest = max(row)
    each = [math.exp(z - highest) * (1.0 if label in among else others) for label, z in enumerate(row)]
    whole = sum(each)
    gradient = [part / whole - (label == target) for label, part in enumerate(each)]
    return highest + math.log(whole) - row[target], gradient


def matrix(values: st.SearchStrategy[float]) -> st.SearchStrategy[list[list[float]]]:
    return st.lists(st.lists(values, min_size=COUNT, max_size=COUNT), min_size=1, max_size=4)


# -- the loss ---------------------------------------------------------------------------------------------------------


@given(matrix(FINITE), LABELS, SHARES, st.data())
def test_a_record_of_the_stage_is_judged_among_the_labels_of_the_stage_and_a_share_of_the_others(
    rows: list[list[float]], own: tuple[int, ...], others: float, data: st.DataObject
) -> None:
    targets = [data.draw(st.sampled_from(own)) for _ in rows]
    loss, gradient = losses(rows, targets, StageLabels(own), others)
    for place, (row, target) in enumerate(zip(rows, targets, strict=True)):
        expected, slope = by_hand(row, target, own, others)
        assert float(loss[place]) == pytest.approx(expected, abs=1e-4)
        assert gradient[place].tolist() == pytest.approx(slope, abs=1e-5)
        assert others > 0 or not gradient[place][[label for label in range(COUNT) if label not in own]].any()


@given(matrix(FINITE), LABELS, LABELS, SHARES, st.data())
def test_a_rehearsed_record_is_judged_among_the_labels_of_its_stages_and_this_one(
    rows: list[list[float]], own: tuple[int, ...], earlier: tuple[int, ...], others: float, data: st.DataObject
) -> None:
    seen = sorted({*own, *earlier})
    targets = [data.draw(st.sampled_from(seen)) for _ in rows]
    loss, gradient = losses(rows, targets, StageLabels(own, earlier), others)
    for place, (row, target) in enumerate(zip(rows, targets, strict=True)):
        expected, slope = by_hand(row, target, own if target in own else seen, others)
        assert float(loss[place]) == pytest.approx(expected, abs=1e-4)
        assert gradient[place].tolist() == pytest.approx(slope, abs=1e-5)


@given(matrix(ANY), st.lists(st.integers(0, COUNT - 1), min_size=4, max_size=4))
def test_a_stage_of_every_label_and_a_whole_share_of_the_others_are_the_plain_loss_bit_for_bit(
    rows: list[list[float]], targets: list[int]
) -> None:
    targets = targets[: len(rows)]
    plain = losses(rows, targets, None)
    for found in (
        losses(rows, targets, StageLabels(tuple(range(COUNT)))),
        losses(rows, targets, StageLabels(tuple(dict.fromkeys(targets))), 1.0),
    ):
        assert all(one.numpy().tobytes() == other.numpy().tobytes() for one, other in zip(found, plain, strict=True))


@given(matrix(ANY), LABELS, SHARES, st.integers(-3, COUNT + 3))
def test_a_record_of_no_label_of_the_stage_adds_exactly_zero_whatever_its_logits_are(
    rows: list[list[float]], own: tuple[int, ...], others: float, target: int
) -> None:
    if target in own:
        target = -1
    loss, gradient = losses(rows, [target] * len(rows), StageLabels(own), others)
    assert loss.tolist() == [0.0] * len(rows)
    assert not gradient.any()


@given(matrix(ANY), LABELS, LABELS, SHARES, st.lists(st.integers(-1, COUNT), min_size=4, max_size=4))
def test_what_a_record_adds_does_not_depend_on_who_stands_beside_it(
    rows: list[list[float]], own: tuple[int, ...], earlier: tuple[int, ...], others: float, targets: list[int]
) -> None:
    labels = StageLabels(own, earlier)
    together = losses(rows, targets[: len(rows)], labels, others)
    for place, row in enumerate(rows):
        alone = losses([row], [targets[place]], labels, others)
        for one, other in zip(alone, together, strict=True):
            assert one[0].numpy().tobytes() == other[place].numpy().tobytes()


def test_a_stage_of_one_label_teaches_nothing() -> None:
    loss, gradient = losses([[1.0, -2.0, 3.0, 0.0, 5.0]], [1], StageLabels((1,)))
    assert loss.tolist() == [0.0]
    assert not gradient.any()


def test_a_site_refuses_to_mask_where_it_is_not_told_the_labels_or_there_are_none(small: Any) -> None:
    with pytest.raises(WireError, match="which labels are of the stage"):
        SiteGuards([MASK], {}).restrict(small.task(), Output(torch.zeros(1, 4), torch.zeros(1).long()))
    text = Output(torch.zeros(1, 3, 4), torch.zeros(1, 3).long(), torch.ones(1, 3))
    with pytest.raises(WireError, match="which labels are of the stage"):
        SiteGuards([MASK], {}, StageLabels((0,))).restrict(small.task("causal-lm"), text)


# -- what the work description tells ----------------------------------------------------------------------------------


def test_a_round_is_told_the_labels_of_its_stage_and_of_those_it_rehearses() -> None:
    spec = TaskSpec("classification", stage_labels=(("one", (0, 1)), ("two", (1, 2)), ("three", (4,))))
    assert spec.taught("two") == StageLabels((1, 2))
    assert spec.taught("three", ("one", "two")) == StageLabels((4,), (0, 1, 2))
    assert spec.taught("three", ("unknown",)) == StageLabels((4,))
    assert spec.taught("unknown", ("one",)) is None


# -- in a step --------------------------------------------------------------------------------------------------------


def play(small: Any, guards: SiteGuards, rows: list[dict[str, str]], *, noise: float | None = None) -> tuple[Any, Any]:
    """(the head's weights before a round, after it) of one step with SGD over all records."""
    loop = {"optimizer": "sgd", "momentum": 0.0, "sampling_rate": 1.0, "steps": 1}
    work = small.work(head="trained", trained=("lora_B",), train=loop)
    task = small.task(head="trained", trained=("lora_B",), train=loop)
    task.resident.focus(work.adapter.trained)
    plan = None if noise is None else small.plan(work, noise_multiplier=noise)
    examples = small.fixed(task.encode(rows))
    before = task.resident.arrays()["head.weight"].copy()
    train_round(task, examples, [small.units(range(len(rows)))], work.train, plan, guards, 0.1)
    return before, task.resident.arrays()["head.weight"]


def of(label: str) -> list[dict[str, str]]:
    return [{"text": text, "label": label} for text in ("card lost", "send money why", "loan")]


@pytest.mark.parametrize("noise", [None, 0.0], ids=["plain", "clipped"])
def test_only_the_rows_of_the_stage_move(small: Any, noise: float | None) -> None:
    rows = [*of("transfer"), *of("rates")]
    for guards, moved in ((SiteGuards([MASK], {}, StageLabels((1, 2))), [1, 2]), (SiteGuards([], {}), [0, 1, 2, 3])):
        before, after = play(small, guards, rows, noise=noise)
        assert np.flatnonzero((before != after).any(axis=1)).tolist() == moved


def test_a_round_with_records_of_other_stages_alone_moves_nothing_and_is_no_fault(small: Any) -> None:
    before, after = play(small, SiteGuards([MASK], {}, StageLabels((1, 2))), of("lost_card"))
    assert np.array_equal(before, after)


def test_with_privacy_such_a_round_moves_by_noise(small: Any) -> None:
    before, after = play(small, SiteGuards([MASK], {}, StageLabels((1, 2))), of("lost_card"), noise=1.0)
    assert (before != after).any(axis=1).all()


def test_a_person_of_other_stages_changes_no_bit_of_the_clipped_sum(small: Any) -> None:
    task = small.task(head="trained")
    guards, plan = SiteGuards([MASK], {}, StageLabels((1, 2))), small.plan(noise_multiplier=0.0)
    examples = small.fixed(task.encode([*of("transfer"), *of("lost_card")]))

    def loss(index: Sequence[int]) -> torch.Tensor:
        return task.losses(guards.restrict(task, task.forward(examples, index)))

    with gradient_of(task.resident, examples, 4, plan) as gradient:
        without, beside = gradient(small.units(range(3)), loss), gradient(small.units(range(6)), loss)
    assert without.any()
    assert torch.equal(without, beside)


# -- at the server ----------------------------------------------------------------------------------------------------


def head(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        "head.weight": draw.normal(size=(COUNT, 3)).astype(np.float32),
        "head.bias": draw.normal(size=COUNT).astype(np.float32),
        "x.lora_B": draw.normal(size=(4, 2)).astype(np.float32),
    }


@given(st.sets(st.integers(0, COUNT - 1), min_size=1))
def test_rows_of_labels_that_nobody_was_taught_are_those_before_the_round(view: Any, taught: set[int]) -> None:
    before, after = head(1), head(2)
    kept = {name: value.copy() for name, value in after.items()}
    guard = MaskServer({})
    found = guard.step(view(before=before, labels=tuple(sorted(taught))), after)
    for label in range(COUNT):
        source = after if label in taught else before
        assert all(np.array_equal(found[name][label], source[name][label]) for name in ("head.weight", "head.bias"))
    assert np.array_equal(found["x.lora_B"], after["x.lora_B"])
    assert all(np.array_equal(after[name], kept[name]) for name in after)
    others = [label for label in range(COUNT) if label not in taught]
    moved = [float(v) for name in ("head.weight", "head.bias") for v in np.ravel((after[name] - before[name])[others])]
    assert guard.notes()["put_back"] == pytest.approx(math.hypot(*moved), rel=1e-5)


def test_without_a_head_or_without_told_labels_nothing_is_put_back(view: Any) -> None:
    before, after = head(1), head(2)
    assert MaskServer({}).step(view(before=before), after) is after
    bare = {"x.lora_B": after["x.lora_B"]}
    assert MaskServer({}).step(view(before=before, labels=(1,)), bare) is bare
