"""A product row by row: a record's logits are the same bits wherever it stands in a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llmchain_fl.core.by_row import RowLinear, by_row
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.core.tasks.passes import Shape


@pytest.mark.parametrize("labels", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("width", [4, 32, 48, 384])
@pytest.mark.parametrize("rows", [1, 2, 5, 6, 9, 33])
def test_a_row_is_the_same_bits_at_every_place_and_beside_all_others(rows: int, width: int, labels: int) -> None:
    draw = torch.Generator().manual_seed(rows)
    x, weight = torch.randn(rows, width, generator=draw), torch.randn(labels, width, generator=draw)
    whole = by_row(x, weight)
    assert torch.allclose(whole.double(), x.double() @ weight.double().T, atol=1e-4)
    for turn in range(rows):
        assert torch.equal(by_row(x.roll(turn, dims=0), weight).roll(-turn, dims=0), whole)
        assert torch.equal(by_row(x[turn : turn + 1], weight)[0], whole[turn])


def test_a_layer_over_one_row_a_record_is_a_linear_layer() -> None:
    layer = RowLinear(6, 3)
    x = torch.randn(4, 6)
    assert torch.allclose(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias), atol=1e-6)
    assert torch.allclose(RowLinear(6, 3, bias=False)(x * 0), torch.zeros(4, 3))


@pytest.mark.parametrize("count", [3, 5, 11])
def test_logits_of_a_record_do_not_depend_on_its_place(small: Any, count: int) -> None:
    """Before, a product over all rows at once: some records differed at some place, by 1e-7."""
    resident = small.task("classification").resident
    labels = {word: word for word in small.words[:count]}
    task = Classification(resident, labels, "mean", 20.0, 16)
    draw = torch.Generator().manual_seed(2)
    resident.theta.copy_(torch.randn(resident.theta.shape, generator=draw))
    for seed in range(8):
        examples = task.encode(small.rows(6, seed=seed))
        examples.fix(Shape(6, 16))
        with torch.no_grad():
            turned = [task.forward(examples, [(i + t) % 6 for i in range(6)]).logits.roll(t, dims=0) for t in range(6)]
        assert all(torch.equal(one, turned[0]) for one in turned)
