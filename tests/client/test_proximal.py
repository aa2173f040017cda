from __future__ import annotations

from typing import Any

import pytest
import torch

from client.gradients import gradient_of
from client.local import proximal, train_round
from llmchain_fl.core.guards import SiteGuards


def far(small: Any, mu: float, optimizer: str = "adam", plan: Any = None) -> float:
    """How far one round goes from the global adapter."""
    task = small.task()
    start = task.resident.trained.clone()
    batches = [small.units([0, 2, 5]), small.units([1, 3]), small.units([4, 7])]
    loop = small.work(train={"proximal": mu, "optimizer": optimizer}).train
    train_round(task, small.fixed(task.encode(small.rows(8))), batches, loop, plan, SiteGuards([], {}), 0.01)
    return float((task.resident.trained - start).norm())


def test_without_strength_nothing_changes_bit_for_bit() -> None:
    theta = torch.tensor([1.0, -2.0, 1e-30])
    before = theta.clone()
    proximal(theta, torch.zeros(3), 0.0)
    assert torch.equal(theta, before)


def test_the_step_minimises_the_proximal_problem() -> None:
    """By descent on m/2 ||x - start||^2 + 1/2 ||x - theta||^2 instead of the closed form."""
    draw = torch.Generator().manual_seed(1)
    theta, start = (torch.randn(6, generator=draw, dtype=torch.float64) for _ in range(2))
    for m in (0.1, 1.0, 7.0):
        x = theta.clone()
        for _ in range(2000):
            x -= 0.05 * (m * (x - start) + (x - theta))
        closed = theta.clone()
        proximal(closed, start, m)
        assert torch.allclose(closed, x, atol=1e-9)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("private", [False, True])
def test_more_strength_stays_nearer_and_without_bound_it_stays_where_it_was(
    small: Any, optimizer: str, private: bool
) -> None:
    plan = small.plan(noise_multiplier=0.0) if private else None
    free, near, nearest = (far(small, mu, optimizer, plan) for mu in (0.0, 100.0, 1e6))
    assert nearest < 1e-3 * free
    assert near < 0.7 * free


def test_a_paused_gradient_leaves_the_layers_their_own_pass_and_takes_them_back(small: Any) -> None:
    task = small.task()
    examples = task.encode(small.rows(4))

    def loss(index: Any) -> torch.Tensor:
        return task.losses(task.forward(examples, index))

    parameters = [task.resident.parameters[name] for name in task.resident.trained_names]
    plain = torch.autograd.grad(loss(range(4)).sum(), parameters)
    with gradient_of(
        task.resident, small.fixed(examples), 1, small.plan(noise_multiplier=0.0, clip_norm=1e3)
    ) as gradient:
        first = gradient(small.units(range(4)), loss)
        with gradient.paused():
            paused = torch.autograd.grad(loss(range(4)).sum(), parameters)
        again = gradient(small.units(range(4)), loss)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(plain, paused, strict=True))
    assert torch.equal(first, again)
    assert torch.allclose(first, torch.cat([g.reshape(-1) for g in plain]), atol=1e-3)
