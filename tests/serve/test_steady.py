"""Each row of the table of ``steady.py``, on computations that round as they are told to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from llmchain_fl.serve.steady import filled, sizes_up_to, steady_sizes


def alike(numbers: Sequence[int]) -> Tensor:
    return torch.tensor([float(n) for n in numbers])


def small_passes_round(numbers: Sequence[int]) -> Tensor:
    return alike(numbers) + (0.5 if len(numbers) < 4 else 0.0)


def places_round(numbers: Sequence[int]) -> Tensor:
    return alike(numbers) + torch.arange(len(numbers)) % 2 * 0.5


def not_a_number(numbers: Sequence[int]) -> Tensor:
    return alike(numbers) * torch.nan


@pytest.mark.parametrize(
    ("compute", "expected"),
    [(alike, (1, 2, 4, 8)), (small_passes_round, (4, 8)), (places_round, (1,)), (not_a_number, (1, 2, 4, 8))],
)
def test_numbers_of_rows_that_change_no_bit(compute: object, expected: tuple[int, ...]) -> None:
    assert steady_sizes(compute, 8) == expected  # type: ignore[arg-type]


def test_a_row_that_company_changes_is_found() -> None:
    def neighbours(numbers: Sequence[int]) -> Tensor:
        return alike(numbers) + float(sum(numbers))

    assert steady_sizes(neighbours, 4) == (1,)


def test_the_smallest_that_holds_the_rows() -> None:
    assert sizes_up_to(6) == [1, 2, 4, 6]
    assert sizes_up_to(1) == [1]
    assert [filled(n, (2, 4, 6)) for n in (1, 2, 3, 5, 6, 9)] == [2, 2, 4, 6, 6, 6]
