"""Against dense per-record gradients of the adapted layers' own weights, one record at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.continual.fisher import drawn, public_fisher, squares
from llmchain_fl.core.adapter.product import modules
from llmchain_fl.core.tasks.base import Output, by_length

KINDS = ["classification", "causal-lm"]


def slow(task: Any, examples: Any, path: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """By a gradient with respect to W0 itself; outputs drawn in the same order."""
    layer = task.resident.head if path == "head" else task.resident.base.module.get_submodule(path)
    weight = layer.weight if path == "head" else layer.get_base_layer().weight
    generator, total = torch.Generator().manual_seed(seed), 0.0
    was = weight.requires_grad
    weight.requires_grad_(True)
    for (i,) in by_length(examples, 1):
        output = task.forward(examples, [i])
        loss = task.losses(replace(output, targets=drawn(output, generator))).sum()
        total = total + torch.autograd.grad(loss, weight)[0].double().square()
    weight.requires_grad_(was)
    total = (total / len(examples)).numpy()
    return total.sum(axis=1), total.sum(axis=0)


@pytest.mark.parametrize(
    "settings", [{}, {"head": "trained"}, {"kind": "causal-lm"}, {"last_layers": 1, "cache_mb": 8}]
)
def test_rows_and_columns_are_those_of_the_squared_gradient_of_each_record(small: Any, settings: Any) -> None:
    task = small.task(**settings)
    examples = task.encode(small.rows(5, settings.get("kind", "classification")))
    paths = modules(task.resident.shapes)
    paths = [paths[0], paths[-1], *(["head"] if settings.get("head") else [])]
    found = public_fisher(task, examples, paths, 3, batch=1)
    for path in paths:
        for got, wanted in zip(found[path], slow(task, examples, path, 3), strict=True):
            assert np.allclose(got, wanted, rtol=2e-3, atol=1e-4 * wanted.max())
            assert wanted.max() > 0


def test_a_batch_does_not_mix_its_records(small: Any) -> None:
    """A record without chance in its outputs (one label): the same sums in batches of 1 and of 8."""
    task = small.task()
    examples, paths = task.encode(small.rows(8)), modules(task.resident.shapes)[:2]
    certain = lambda output, generator: output.logits.argmax(dim=-1)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmchain_fl.continual.fisher.drawn", certain)
        one, eight = (public_fisher(task, examples, paths, 1, batch=size) for size in (1, 8))
        twice = public_fisher(task, task.encode(small.rows(8) * 2), paths, 1, batch=8)
    for path in paths:
        for a, b, c in zip(one[path], eight[path], twice[path], strict=True):
            assert np.allclose(a, b, rtol=1e-3, atol=1e-5 * a.max())
            assert np.allclose(a, c, rtol=1e-3, atol=1e-5 * a.max())


def test_both_sums_have_one_total(small: Any) -> None:
    task = small.task()
    paths = modules(task.resident.shapes)
    for rows, cols in public_fisher(task, task.encode(small.rows(6)), paths, 1).values():
        assert np.isclose(rows.sum(), cols.sum(), rtol=1e-6)


def test_labels_are_not_looked_at_and_a_record_needs_none(small: Any) -> None:
    task, rows = small.task(), small.rows(6)
    paths = modules(task.resident.shapes)[:1]
    bare = [{"text": row["text"]} for row in rows]
    one, other = (public_fisher(task, task.encode(r), paths, 1)[paths[0]] for r in (rows, bare))
    assert np.array_equal(one[0], other[0])


def test_a_layer_that_is_run_twice_is_squared_as_a_whole() -> None:
    x, d = torch.randn(2, 4, 3), torch.randn(2, 4, 5)
    whole = torch.einsum("nto,nti->noi", d.double(), x.double()).square().sum(dim=0).numpy()
    for parts in ([x], [d]), ([x[:, :1], x[:, 1:]], [d[:, :1], d[:, 1:]]):
        rows, cols = squares(*parts)
        assert np.allclose(rows, whole.sum(axis=1))
        assert np.allclose(cols, whole.sum(axis=0))


def test_a_layer_without_tokens_counts_as_one_token() -> None:
    x, d = torch.randn(3, 4), torch.randn(3, 2)
    whole = torch.einsum("no,ni->noi", d.double(), x.double()).square().sum(dim=0).numpy()
    rows, _ = squares([x], [d])
    assert np.allclose(rows, whole.sum(axis=1))


def test_outputs_are_drawn_with_their_probabilities() -> None:
    logits = torch.tensor([0.7, 0.2, 0.1]).log().expand(20_000, 3)
    found = drawn(Output(logits, torch.zeros(20_000)), torch.Generator().manual_seed(1))
    shares = np.bincount(found.numpy(), minlength=3) / 20_000
    assert np.abs(shares - [0.7, 0.2, 0.1]).max() < 0.02
    tokens = drawn(Output(torch.zeros(2, 3, 7), torch.zeros(2, 3)), torch.Generator().manual_seed(1))
    assert tokens.shape == (2, 3)


def test_a_certain_prediction_has_nothing_to_lose(small: Any) -> None:
    task = small.task()
    examples, paths = task.encode(small.rows(4)), modules(task.resident.shapes)[:1]
    before = public_fisher(task, examples, paths, 1)[paths[0]][0].sum()
    task._scale *= 100
    after = public_fisher(task, examples, paths, 1)[paths[0]][0].sum()
    task._scale /= 100
    assert after < 1e-3 * before


def test_the_model_is_as_before(small: Any) -> None:
    task = small.task()
    theta, layer = (
        task.resident.theta.clone(),
        task.resident.base.module.get_submodule(modules(task.resident.shapes)[0]),
    )
    hooks = len(layer._forward_hooks)
    public_fisher(task, task.encode(small.rows(2)), modules(task.resident.shapes), 1)
    assert torch.equal(task.resident.theta, theta)
    assert len(layer._forward_hooks) == hooks
