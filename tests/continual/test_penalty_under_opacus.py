"""Why a penalty does not stand in the loss: Opacus' optimizer takes its step from per-record gradients alone.

``DPOptimizer`` replaces ``p.grad`` by the noised sum of clipped ``grad_sample``; what a penalty put into ``p.grad`` is
gone, without a word. Beside it the same model and penalty in our loop, where it acts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from client.local import train_round
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.guards.site_guard import SiteGuard


def opacus_step(strength: float, *, private: bool = True) -> torch.Tensor:
    """Parameters after one step of a regression with ``strength`` x |w|^2 in its loss; noise multiplier 0."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    torch.manual_seed(1)
    module = nn.Linear(4, 1)
    x, y = torch.randn(6, 4), torch.randn(6, 1)
    model: Any = GradSampleModule(module) if private else module
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1)
    if private:
        optimizer = DPOptimizer(optimizer, noise_multiplier=0.0, max_grad_norm=1.0, expected_batch_size=6)
    penalty = sum(p.square().sum() for p in model.parameters())
    loss = (model(x) - y).square().mean() + strength * penalty
    loss.backward()
    optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


class Shrink(SiteGuard):
    """strength x |theta|^2."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def penalty(self, task: Any) -> torch.Tensor:
        return self.strength * sum(task.resident.parameters[n].square().sum() for n in task.resident.trained_names)


def our_step(small: Any, strength: float) -> tuple[np.ndarray, float]:
    """(what one private step with noise multiplier 0 made of the adapter, penalty as a share of the gradient)."""
    task = small.task()
    guards = SiteGuards([], {})
    guards._guards = [Shrink(strength)]
    work = small.work(train={"steps": 1, "optimizer": "sgd", "momentum": 0.0, "batch_size": 6.0})
    examples, plan = small.fixed(task.encode(small.rows(6))), small.plan(work, noise_multiplier=0.0)
    result = train_round(task, examples, [small.units(range(6))], work.train, plan, guards, 1e-4)
    return np.concatenate([result.arrays[n].reshape(-1) for n in task.resident.trained_names]), result.penalty


def test_opacus_drops_a_penalty_in_the_loss_without_a_word() -> None:
    plain = (opacus_step(0.0, private=False) - opacus_step(100.0, private=False)).norm()
    assert float(plain) > 1.0
    assert torch.equal(opacus_step(0.0), opacus_step(100.0))


def test_our_private_step_takes_the_whole_of_it(small: Any) -> None:
    """2 strength theta, neither clipped (it is far longer than the clip norm) nor divided by the batch."""
    (none, nothing), (strong, share) = our_step(small, 0.0), our_step(small, 100.0)
    task = small.task()
    theta = task.resident.trained.numpy().astype(np.float64)
    assert np.linalg.norm(200.0 * theta) > 100.0
    assert np.allclose((none - strong) / 1e-4, 200.0 * theta, rtol=1e-2, atol=0.05)
    assert nothing == 0.0
    assert share > 100.0


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_an_empty_private_batch_still_takes_the_penalty(small: Any, strength: float) -> None:
    task, work = small.task(), small.work(train={"steps": 1, "optimizer": "sgd", "momentum": 0.0})
    guards = SiteGuards([], {})
    guards._guards = [Shrink(strength)]
    before = task.resident.trained.clone()
    plan = small.plan(work, noise_multiplier=0.0)
    train_round(task, small.fixed(task.encode(small.rows(2))), [[]], work.train, plan, guards, 0.01)
    assert torch.allclose(task.resident.trained, (1 - 0.02 * strength) * before, atol=1e-6)
