"""The private gradient of persons against another road: one record at a time in float64, summed per person, clipped."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from client.gradients import PrivateGradient, gradient_of
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.units import Batch

PEOPLE = [[0, 3, 4, 6, 8], [1], [2, 5], [7]]
"""Four persons; the first has more records than a pass of 1 or 4 rows holds."""
CASES: dict[str, dict[str, Any]] = {
    "lora_B only": {"trained": ("lora_B",)},
    "lora_A, lora_B and a trained head": {"trained": ("lora_A", "lora_B"), "head": "trained"},
    "a causal language model": {"kind": "causal-lm"},
}
ROWS = [1, 2, 4, 9, 100]


def batch(people: Sequence[Sequence[int]]) -> Batch:
    return [np.array(records, dtype=np.int64) for records in people]


def exact_rows(case: Any) -> np.ndarray:
    """Gradient of each record alone, all of it computed in float64 by a copy of the model [n, P]."""
    slow = copy.deepcopy(case.task)
    slow.resident.module.double()
    if slow.resident.head is None and hasattr(slow, "label_vectors"):
        slow.label_vectors = slow.label_vectors.double()
    parameters = [slow.resident.parameters[name] for name in slow.resident.trained_names]
    assert {parameter.dtype for parameter in parameters} == {torch.float64}
    rows = []
    for i in range(case.count):
        with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):  # the task rounds hidden states to float32
            loss = slow.losses(slow.forward(case.examples, [i]))[0]
        assert loss.dtype == torch.float64
        rows.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)]).numpy())
    return np.array(rows)


def per_person(rows: np.ndarray, people: Sequence[Sequence[int]] = PEOPLE) -> np.ndarray:
    """Sum over each person's records [persons, P]."""
    return np.array([rows[list(records)].sum(axis=0) for records in people])


def private(
    case: Any,
    clip: float,
    people: Sequence[Sequence[int]] = PEOPLE,
    *,
    rows: int = 4,
    loss: Callable[[Sequence[int]], Tensor] | None = None,
) -> Tensor:
    """The noise-free private sum over these persons."""
    plan = case.small.plan(unit="person", noise_multiplier=0.0, clip_norm=clip, records_per_unit=9)
    with gradient_of(case.resident, case.fixed(rows), 1, plan) as gradient:
        return gradient(batch(people), loss or case.loss)


@pytest.mark.parametrize("name", CASES)
def test_without_noise_it_is_the_sum_of_persons_each_clipped_once(case_of: Any, name: str) -> None:
    case = case_of(**CASES[name])
    persons = per_person(exact_rows(case))
    clip = case.median_norm(persons)
    norms = np.linalg.norm(persons, axis=1)
    assert 0 < (norms > clip).sum() < len(PEOPLE)
    for size in ROWS:
        assert case.apart(private(case, clip, rows=size), case.clipped(persons, clip)) < 1e-5


def test_the_same_check_catches_records_that_are_clipped_one_by_one(case_of: Any) -> None:
    """Negative control: record-level clipping under a person's epsilon gives another sum, and a longer one."""
    case = case_of()
    rows = exact_rows(case)
    clip = 0.5 * case.median_norm(per_person(rows))
    found = private(case, clip, [[i] for i in range(9)])
    assert case.apart(found, case.clipped(per_person(rows), clip)) > 1e-2


def test_the_same_check_catches_a_person_that_is_clipped_piece_by_piece(case_of: Any) -> None:
    """Negative control: a person cut up over two passes and clipped in each of them."""
    case = case_of()
    persons = per_person(exact_rows(case))
    clip = 0.5 * case.median_norm(persons)
    cut = [piece for person in PEOPLE for piece in np.array_split(person, range(2, len(person), 2))]
    assert case.apart(private(case, clip, cut, rows=2), case.clipped(persons, clip)) > 1e-2


@pytest.mark.parametrize("name", CASES)
def test_the_number_of_rows_in_a_pass_does_not_change_the_result(case_of: Any, name: str) -> None:
    case = case_of(**CASES[name])
    clip = case.median_norm(per_person(case.each()))
    first, *others = [private(case, clip, rows=size) for size in ROWS]
    for other in others:
        assert case.apart(other, first.double().numpy()) < 1e-5


def test_the_order_of_records_and_of_persons_does_not_matter(case_of: Any) -> None:
    case = case_of()
    clip = case.median_norm(per_person(case.each()))
    turned = [list(reversed(records)) for records in reversed(PEOPLE)]
    assert case.apart(private(case, clip, turned), private(case, clip).double().numpy()) < 1e-5


@pytest.mark.parametrize("count", [1, 2, 3, 8, 33, 64])
def test_a_person_moves_the_sum_by_at_most_the_clip_norm_whatever_number_of_records(case_of: Any, count: int) -> None:
    """Records 4 to 8 over and over: the same person with 1 to 64 records beside three others."""
    case = case_of()
    clip = 0.1 * case.median_norm(case.each())
    others = [[0], [1, 2], [3]]
    mine = [4 + i % 5 for i in range(count)]
    for size in (4, 100):
        moved = float((private(case, clip, [*others, mine], rows=size) - private(case, clip, others)).norm())
        assert 0.99 * clip < moved <= clip * (1 + 1e-6)


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_record_that_is_not_finite_takes_its_own_person_out_and_nobody_else(
    case_of: Any, size: int, value: float
) -> None:
    case = case_of()
    persons = per_person(exact_rows(case))
    clip = case.median_norm(persons)

    def spoilt(index: Sequence[int]) -> Tensor:
        return case.loss(index) * torch.tensor([value if i == 4 else 1.0 for i in index])

    plan = case.small.plan(unit="person", noise_multiplier=0.0, clip_norm=clip, records_per_unit=9)
    gradient = PrivateGradient(case.resident, case.fixed(size), plan, SecureNoise())
    found = gradient(batch(PEOPLE), spoilt)
    gradient.close()
    assert case.apart(found, case.clipped(persons[1:], clip)) < 1e-5
    assert gradient.unusable == 0.25


def test_two_records_of_one_person_that_are_not_finite_are_one_person_that_is_not_counted(case_of: Any) -> None:
    case = case_of()

    def spoilt(index: Sequence[int]) -> Tensor:
        return case.loss(index) * torch.tensor([float("inf") if i in (0, 8) else 1.0 for i in index])

    assert torch.equal(private(case, 1.0, loss=spoilt), private(case, 1.0, PEOPLE[1:]))


def test_noise_is_added_once_a_step_however_many_passes_a_person_takes(case_of: Any) -> None:
    case = case_of(trained=("lora_B",))
    clip = case.median_norm(per_person(case.each()))
    quiet = private(case, clip).double()
    plan = case.small.plan(unit="person", noise_multiplier=2.0, clip_norm=clip, records_per_unit=9)
    with gradient_of(case.resident, case.fixed(1), 1, plan) as gradient:
        noise = torch.cat([gradient(batch(PEOPLE), case.loss).double() - quiet for _ in range(10)]) / (2.0 * clip)
    assert abs(float(noise.square().sum()) - noise.numel()) < 5.5 * (2 * noise.numel()) ** 0.5


def test_what_leaves_a_step_lies_on_the_public_grid_of_its_noise(case_of: Any) -> None:
    """Noise of std 3/2: multiples of 2**-16."""
    case = case_of(trained=("lora_B",))
    plan = case.small.plan(unit="person", noise_multiplier=2.0, clip_norm=0.75, records_per_unit=9)
    with gradient_of(case.resident, case.fixed(), 1, plan) as gradient:
        found = gradient(batch(PEOPLE), case.loss).double() * 2**16
    assert torch.equal(found, found.round())
    assert bool((found % 2 == 1).any())
