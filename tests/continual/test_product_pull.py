"""The proximal step against its definition: autograd on the dense objective, and brute force."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from llmchain_fl.core.guards.product_pull import pulled, pulled_dense

SEEDS = st.integers(0, 2**31 - 1)
KINDS = ["B", "A", "core"]
D_OUT, D_IN, RANK = 5, 6, 2


def problem(seed: int, kind: str) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    return {
        "x": normal(*{"B": (D_OUT, RANK), "A": (RANK, D_IN), "core": (RANK, RANK)}[kind]),
        "left": None if kind == "B" else normal(D_OUT, RANK),
        "right": None if kind == "A" else normal(RANK, D_IN),
        "rest": (normal(D_OUT, 3), normal(3, D_IN)),
        "importance": (normal(D_OUT).square(), normal(D_IN).square()),
    }


def apart(of: dict[str, Any], x: Tensor) -> Tensor:
    """P X Q + M N, formed."""
    x = x if of["left"] is None else of["left"] @ x
    x = x if of["right"] is None else x @ of["right"]
    return x + of["rest"][0] @ of["rest"][1]


def weighted(of: dict[str, Any], x: Tensor) -> Tensor:
    row, col = of["importance"]
    return (row[:, None] * col * apart(of, x).square()).sum()


@pytest.mark.parametrize("kind", KINDS)
@given(seed=SEEDS, strength=st.floats(1e-3, 1e3))
def test_the_gradient_of_the_whole_objective_is_zero_there(kind: str, seed: int, strength: float) -> None:
    of = problem(seed, kind)
    x = pulled(**of, strength=strength).requires_grad_()
    objective = 0.5 * (x - of["x"]).square().sum() + 0.5 * strength * weighted(of, x)
    (gradient,) = torch.autograd.grad(objective, x)
    size = strength * max(1.0, float(weighted(of, of["x"])))
    assert float(gradient.abs().max()) < 1e-7 * max(1.0, size)


@pytest.mark.parametrize("kind", KINDS)
def test_no_other_point_is_better(kind: str) -> None:
    of, draw = problem(3, kind), torch.Generator().manual_seed(1)

    def objective(x: Tensor) -> float:
        return float(0.5 * (x - of["x"]).square().sum() + 0.35 * weighted(of, x))

    best = pulled(**of, strength=0.7)
    around = [best + s * torch.randn(best.shape, generator=draw, dtype=torch.float64) for s in (1e-3, 0.1, 1) * 50]
    assert all(objective(x) > objective(best) for x in [*around, of["x"]])


@pytest.mark.parametrize("kind", KINDS)
def test_without_strength_nothing_moves_bit_for_bit(kind: str) -> None:
    of = problem(1, kind)
    assert torch.equal(pulled(**of, strength=0.0), of["x"])
    assert torch.equal(pulled_dense(of["x"], -of["x"], of["x"].square(), 0.0), of["x"])


@pytest.mark.parametrize("kind", KINDS)
def test_endless_strength_is_the_weighted_least_squares_solution(kind: str) -> None:
    """By lstsq over the Kronecker product, not by eigenvalues."""
    of = problem(2, kind)
    row, col = of["importance"]
    left = torch.eye(D_OUT, dtype=torch.float64) if of["left"] is None else of["left"]
    right = torch.eye(D_IN, dtype=torch.float64) if of["right"] is None else of["right"]
    root = (row[:, None] * col).sqrt().reshape(-1, 1)
    system = root * torch.kron(left, right.T.contiguous())
    wanted = -root[:, 0] * (of["rest"][0] @ of["rest"][1]).reshape(-1)
    expected = torch.linalg.lstsq(system, wanted[:, None]).solution.reshape(of["x"].shape)
    for strength in (float("inf"), 1e14):
        assert torch.allclose(pulled(**of, strength=strength), expected, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_in_reach_is_hit_exactly_and_stays(kind: str) -> None:
    of = problem(4, kind)
    goal = torch.randn(of["x"].shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    of["rest"] = (-apart(of | {"rest": (torch.zeros(D_OUT, 1).double(), torch.zeros(1, D_IN).double())}, goal), EYE)
    found = pulled(**of, strength=float("inf"))
    assert float(apart(of, found).abs().max()) < 1e-9
    of["x"] = found
    assert torch.allclose(pulled(**of, strength=5.0), found, atol=1e-9)


EYE = torch.eye(D_IN, dtype=torch.float64)


@pytest.mark.parametrize("strength", [1.0, 1e12, float("inf")])
def test_what_has_no_weight_stays(strength: float) -> None:
    of = problem(5, "B")
    of["importance"][0][:2] = 0.0
    found = pulled(**of, strength=strength)
    assert torch.equal(found[:2], of["x"][:2])
    assert float((found[2:] - of["x"][2:]).abs().min()) > 0


@pytest.mark.parametrize("strength", [1.0, 1e12, float("inf")])
def test_a_dead_direction_of_the_other_factor_stays(strength: float) -> None:
    """Rank 1 in A: B can move along one direction only, and rounding must not blow up the other."""
    for seed in range(30):
        of, factor = problem(seed, "B"), 0.1 + seed / 7
        of["right"][1] = factor * of["right"][0]
        found = pulled(**of, strength=strength)
        dead = torch.tensor([factor, -1.0], dtype=torch.float64)
        assert torch.allclose(found @ dead, of["x"] @ dead, atol=1e-9)
        assert float((found - of["x"]).abs().max()) > 1e-3


def test_a_stronger_pull_is_never_farther_away() -> None:
    of = problem(7, "core")
    found = [float(weighted(of, pulled(**of, strength=s))) for s in (0.0, 0.1, 1.0, 10.0, 1e6, float("inf"))]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_a_head_is_pulled_entry_by_entry(strength: float, importance: float) -> None:
    x, target = torch.tensor([3.0], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    weight = torch.tensor([importance], dtype=torch.float64)
    found = pulled_dense(x, target, weight, strength)
    assert torch.allclose(found - x + strength * importance * (found - target), torch.zeros(1).double(), atol=1e-9)
    assert torch.equal(pulled_dense(x, target, weight, float("inf")), target)
    assert torch.equal(pulled_dense(x, target, 0 * weight, float("inf")), x)
