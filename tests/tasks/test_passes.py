"""Which records go through the model together: laws over all lengths, indices and shapes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.tasks.passes import Shape, each_record, passes, rung

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=40)


def examples_of(lengths: Sequence[int], shape: Shape | None = None) -> Examples:
    """Records of these lengths; the tokens of record i are all i + 1."""
    ids = [np.full(length, i + 1, dtype=np.int64) for i, length in enumerate(lengths)]
    return Examples(ids, np.zeros(len(ids), dtype=np.int64), shape=shape)


# -- rungs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "longest", "expected"),
    [
        *[(1, 512, 8), (7, 512, 8), (8, 512, 16), (63, 512, 64), (64, 512, 80)],
        *[(65, 512, 80), (79, 512, 80), (80, 512, 96), (127, 512, 128)],
        *[(128, 512, 160), (255, 512, 256), (256, 512, 320), (511, 512, 512), (512, 512, 512)],
        *[(20, 22, 22), (22, 22, 22), (3, 4, 4), (200, 201, 201)],
        *[(600, 512, 600), (9, 4, 9)],
    ],
)
def test_each_row_of_the_table_of_rungs(length: int, longest: int, expected: int) -> None:
    assert rung(length, longest) == expected
    assert Shape(4, longest).padded(length) == expected


@given(st.integers(1, 40_000), st.integers(4, 40_000))
def test_a_rung_is_never_shorter_than_the_record_nor_longer_than_the_longest_or_an_eighth_more(
    length: int, longest: int
) -> None:
    found = rung(length, longest)
    assert found >= length
    assert found <= max(longest, length)
    assert found - length <= max(8, length / 4)
    assert found > length or length >= longest  # padded wherever that can be: so the mask is never left out
    assert rung(length + 1, longest) >= found


def test_few_rungs_cover_all_lengths() -> None:
    """Each is a shape that kernels must be found for."""
    assert len({rung(length, 32_768) for length in range(1, 32_769)}) <= 8 + 4 * math.log2(32_768 / 64)


# -- passes -----------------------------------------------------------------------------------------------------------


@st.composite
def asked(draw: Any) -> tuple[list[int], list[int], Shape]:
    """(lengths, numbers of records that are asked for, a shape)."""
    lengths = draw(LENGTHS)
    index = draw(st.lists(st.integers(0, len(lengths) - 1), unique=True))
    longest = draw(st.integers(max(lengths), 400))
    rows = draw(st.integers(1, 9))
    kinds = sorted({Shape(rows, longest).kind(length) for length in lengths})
    fewest = draw(st.lists(st.tuples(st.sampled_from(kinds), st.integers(1, rows)), unique_by=lambda pair: pair[0]))
    return lengths, index, Shape(rows, longest, tuple(fewest))


@given(asked())
def test_every_record_counts_once_and_every_pass_has_an_allowed_shape(told: tuple[list[int], list[int], Shape]) -> None:
    lengths, index, shape = told
    examples, fewest = examples_of(lengths, shape), dict(shape.fewest)
    counted: list[int] = []
    for part, count in passes(examples, index, 3):
        ((length, filled),) = {shape.kind(lengths[i]) for i in part}
        assert 1 <= count <= len(part)
        assert fewest.get((length, filled), shape.rows) <= len(part) <= shape.rows
        assert bool(examples.batch(part, 0, torch.device("cpu"))[1].all()) == filled  # all of them padded, or none
        assert set(part[count:]) <= {part[0]}
        assert examples.batch(part, 0, torch.device("cpu"))[0].shape == (len(part), length)
        counted += part[:count]
    assert Counter(counted) == Counter(index)


@given(asked(), st.data())
def test_the_order_of_some_records_is_the_same_whatever_the_others_are(
    told: tuple[list[int], list[int], Shape], data: Any
) -> None:
    """A person's rows are added up in an order of their own: floating-point sums depend on it."""
    lengths, index, shape = told
    some = data.draw(st.sets(st.sampled_from(index))) if index else set()
    examples = examples_of(lengths, shape)

    def order(those: Sequence[int]) -> list[int]:
        return [i for part, count in passes(examples, those, 3) for i in part[:count]]

    assert [i for i in order(sorted(index)) if i in some] == order(sorted(some))


@given(LENGTHS, st.integers(1, 9))
def test_without_a_shape_records_go_by_length_and_each_once(lengths: list[int], batch: int) -> None:
    found = list(passes(examples_of(lengths), range(len(lengths)), batch))
    assert all(len(part) == count <= batch for part, count in found)
    assert Counter(i for part, _ in found for i in part) == Counter(range(len(lengths)))
    assert [lengths[i] for part, _ in found for i in part] == sorted(lengths)
    assert all(len(part) == batch for part, _ in found[:-1])


@pytest.mark.parametrize("shape", [None, Shape(4, 16)])
def test_no_record_no_pass(shape: Shape | None) -> None:
    assert list(passes(examples_of([3, 4], shape), [], 4)) == []


# -- each record ------------------------------------------------------------------------------------------------------


def sums(examples: Examples, index: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = examples.batch(index, 0, torch.device("cpu"))
    return ids.double().sum(dim=1), mask.double().sum(dim=1)


@given(asked())
def test_each_record_gets_its_own_numbers(told: tuple[list[int], list[int], Shape]) -> None:
    lengths, _, shape = told
    for examples in (examples_of(lengths), examples_of(lengths, shape)):
        total, tokens = each_record(examples, 3, lambda index, examples=examples: sums(examples, index), 2)
        assert total.tolist() == [float(length * (i + 1)) for i, length in enumerate(lengths)]
        assert tokens.tolist() == [float(length) for length in lengths]


@given(asked(), st.data())
def test_a_record_whose_pass_raises_is_nan_and_its_neighbours_are_as_without_it(
    told: tuple[list[int], list[int], Shape], data: Any
) -> None:
    lengths, _, shape = told
    bad = data.draw(st.sets(st.integers(0, len(lengths) - 1)))
    examples, seen = examples_of(lengths, shape), set()

    def compute(index: Sequence[int]) -> tuple[torch.Tensor, ...]:
        seen.add((len(index), shape.kind(lengths[index[0]])))
        if bad & set(index):
            raise RuntimeError("a record that cannot be read")
        return sums(examples, index)[:1]

    (found,) = each_record(examples, 3, compute)
    assert {i for i, value in enumerate(found) if np.isnan(value)} == bad
    clean = each_record(examples, 3, lambda index: sums(examples, index)[:1])[0]
    assert all(found[i] == clean[i] for i in range(len(lengths)) if i not in bad)
    assert all(rows >= dict(shape.fewest).get(kind, shape.rows) for rows, kind in seen)


def test_without_a_shape_an_error_is_one() -> None:
    with pytest.raises(ZeroDivisionError):
        each_record(examples_of([3, 4]), 2, lambda index: 1 / 0)


def test_no_record_no_number() -> None:
    assert each_record(examples_of([], Shape(4, 16)), 2, lambda index: 1 / 0, 2).shape == (2, 0)


def test_no_gradient_is_kept() -> None:
    weight = torch.ones(1, requires_grad=True)
    seen: list[torch.Tensor] = []

    def compute(index: Sequence[int]) -> tuple[torch.Tensor, ...]:
        seen.append(weight.repeat(len(index)) * 2)
        return (seen[-1],)

    assert each_record(examples_of([3, 4]), 2, compute).tolist() == [[2.0, 2.0]]
    assert not seen[0].requires_grad


# -- examples ---------------------------------------------------------------------------------------------------------


def test_what_was_kept_in_another_shape_is_dropped() -> None:
    examples = examples_of([3, 4], Shape(4, 16))
    examples.frozen_outputs[0] = torch.zeros(1)
    examples.fix(Shape(4, 16))
    assert set(examples.frozen_outputs) == {0}
    examples.fix(Shape(2, 16))
    assert examples.frozen_outputs == {}
