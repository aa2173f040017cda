"""The private gradient against another road: one record at a time with autograd, clipped in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import client.gradients
from client.gradients import PrivateGradient
from client.plain_gradient import PlainGradient, chunks
from llmchain_fl.core.privacy.noise import SecureNoise

CASES: dict[str, dict[str, Any]] = {
    "lora_B only": {"trained": ("lora_B",)},
    "lora_A and lora_B": {"trained": ("lora_A", "lora_B")},
    "with a trained head": {"trained": ("lora_B",), "head": "trained"},
    "with the distill guard": {"trained": ("lora_A", "lora_B"), "distill": True},
    "with the distill guard and a trained head": {"trained": ("lora_A", "lora_B"), "head": "trained", "distill": True},
    "from the last layer on, frozen outputs kept": {
        "trained": ("lora_A", "lora_B"),
        "last_layers": 1,
        "cache_mb": 64,
        "distill": True,
    },
    "a causal language model": {"kind": "causal-lm", "trained": ("lora_A", "lora_B")},
    "a causal language model with the guard, kept": {
        "kind": "causal-lm",
        "last_layers": 2,
        "cache_mb": 64,
        "distill": True,
    },
}


@pytest.mark.parametrize("name", CASES)
def test_without_noise_it_is_the_slow_loop_over_records(case_of: Any, name: str) -> None:
    case = case_of(**CASES[name])
    rows = case.each()
    clip = case.median_norm(rows)
    norms = np.linalg.norm(rows, axis=1)
    assert 0 < (norms > clip).sum() < case.count
    for size in (1, 4, case.count, 100):
        assert case.apart(case.private(clip, rows=size), case.clipped(rows, clip)) < 1e-5


def _no_clipping(rows: Tensor, clip: float) -> tuple[Tensor, int]:
    return rows.sum(dim=0), 0


def _clip_the_sum(rows: Tensor, clip: float) -> tuple[Tensor, int]:
    total = rows.sum(dim=0)
    return total * min(1.0, clip / float(total.norm())), 0


def _clip_each_half(rows: Tensor, clip: float) -> tuple[Tensor, int]:
    halves = rows.chunk(2, dim=1)
    return torch.cat([(half * (clip / half.norm(dim=1, keepdim=True)).clamp(max=1.0)).sum(dim=0) for half in halves]), 0


def _forget_the_last(rows: Tensor, clip: float) -> tuple[Tensor, int]:
    return (rows[:-1] * (clip / rows[:-1].norm(dim=1, keepdim=True)).clamp(max=1.0)).sum(dim=0), 0


def _normalise_always(rows: Tensor, clip: float) -> tuple[Tensor, int]:
    return (rows * (clip / rows.norm(dim=1, keepdim=True))).sum(dim=0), 0


@pytest.mark.parametrize("broken", [_no_clipping, _clip_the_sum, _clip_each_half, _forget_the_last, _normalise_always])
def test_the_same_check_catches_a_broken_clipping(
    case_of: Any, monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Any]
) -> None:
    """Negative control: the check above is able to fail."""
    case = case_of()
    rows = case.each()
    clip = case.median_norm(rows)
    monkeypatch.setattr(client.gradients, "clipped_sum", broken)
    assert case.apart(case.private(clip, rows=100), case.clipped(rows, clip)) > 1e-3


def test_the_same_check_catches_losses_that_are_averaged_over_the_batch(case_of: Any) -> None:
    """Negative control: with a batch mean, what a record gives depends on how many others there are."""
    case = case_of()
    rows = case.each()
    clip = case.median_norm(rows)
    found = case.private(clip, rows=100, loss=lambda index: case.loss(index) / len(index))
    assert case.apart(found, case.clipped(rows, clip)) > 1e-2


@pytest.mark.parametrize("settings", [{}, {"head": "trained", "distill": True}, {"kind": "causal-lm"}])
def test_each_record_moves_the_sum_by_at_most_the_clip_norm(case_of: Any, settings: dict[str, Any]) -> None:
    case = case_of(**settings)
    clip = 0.5 * case.median_norm(case.each())
    whole = case.private(clip)
    moves = [
        float((whole - case.private(clip, [j for j in range(case.count) if j != i])).norm()) for i in range(case.count)
    ]
    assert max(moves) <= clip * (1 + 1e-4)
    assert max(moves) > 0.99 * clip


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_record_that_is_not_finite_counts_as_zero(small: Any, case_of: Any, size: int, value: float) -> None:
    case = case_of()
    rows = case.each()
    clip = case.median_norm(rows)

    def spoilt(index: Sequence[int]) -> Tensor:
        return case.loss(index) * torch.tensor([value if i == 3 else 1.0 for i in index])

    plan = small.plan(noise_multiplier=0.0, clip_norm=clip)
    private = PrivateGradient(case.resident, case.fixed(size), plan, SecureNoise())
    found = private(small.units(range(case.count)), spoilt)
    private.close()
    assert case.apart(found, case.clipped(np.delete(rows, 3, axis=0), clip)) < 1e-5
    assert private.unusable == pytest.approx(1 / 9)


@pytest.mark.parametrize(
    "settings",
    [{}, {"head": "trained", "trained": ("lora_B",)}, {"kind": "causal-lm", "last_layers": 1, "cache_mb": 64}],
)
def test_the_plain_gradient_is_that_of_the_summed_loss(case_of: Any, settings: dict[str, Any]) -> None:
    case = case_of(**settings)
    expected = case.each().sum(axis=0)
    for micro in (1, 4, 100):
        plain = PlainGradient(case.resident, case.examples, micro)
        assert case.apart(plain(case.small.units(range(case.count)), case.loss), expected) < 1e-5
    assert not PlainGradient(case.resident, case.examples, 4)([], lambda index: pytest.fail("a forward pass")).any()


def test_chunks_hold_every_record_once() -> None:
    assert [list(part) for part in chunks(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks([], 3)) == []
