"""The guard ``anchor``: both halves, by dense matrices. That it acts in the real loop: test_guards_act.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.core.adapter.product import modules
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards.anchor import AnchorSite
from llmchain_fl.guards.anchor import AnchorServer

PLAIN = {"importance": "plain", "decay": 1.0, "strength": 1.0}
QUERY = "encoder.layer.0.attention.self.query"


def site(payload: Arrays, strength: float = 1e30) -> AnchorSite:
    return AnchorSite({**PLAIN, "strength": strength}, payload)


def ended(task: Any, view: Any, arrays: Arrays, **settings: Any) -> AnchorServer:
    """A server half at the end of a stage."""
    server = AnchorServer({**PLAIN, **settings})
    shown = view(task, before=task.resident.fresh(), scale=task.resident.spec.adapter.scale)
    server.step(shown, arrays)
    server.on_stage_end(shown, arrays, arrays)
    return server


def moved(task: Any, seed: int = 5, size: float = 0.05) -> None:
    draw = torch.Generator().manual_seed(seed)
    task.resident.trained.add_(size * torch.randn(task.resident.trained.shape, generator=draw))


def whole(task: Any) -> Arrays:
    return {**task.resident.arrays(), **task.resident.fold.arrays()}


def worst(task: Any, dense: Any, star: Arrays) -> float:
    """Largest |Delta W - Delta W*| / |Delta W*| over modules."""
    now, scale = whole(task), task.resident.spec.adapter.scale
    found = []
    for module in modules(now):
        old = dense(star, module, scale)
        found.append(np.linalg.norm(dense(now, module, scale) - old) / np.linalg.norm(old))
    return max(found)


TRAINED = [("lora_A", "lora_B"), ("lora_B",), ("lora_A",), ("lora_R",)]


@pytest.mark.parametrize("trained", TRAINED, ids=["both", "B", "A", "core"])
def test_endless_strength_is_the_old_product_whichever_factor_is_trained(
    small: Any, view: Any, dense: Any, trained: tuple[str, ...]
) -> None:
    task = small.task(trained=trained)
    star = whole(task)
    moved(task)
    before, frozen = worst(task, dense, star), task.resident.theta[task.resident.trained_size :].clone()
    site(ended(task, view, star).payload()).pull(task, 0.01)
    assert before > 0.05
    assert worst(task, dense, star) < 2e-6
    assert torch.equal(task.resident.theta[task.resident.trained_size :], frozen)


@pytest.mark.parametrize("focus", ["lora_A", "lora_B"])
def test_a_round_that_trains_one_factor_moves_that_one_alone(small: Any, view: Any, dense: Any, focus: str) -> None:
    task = small.task()
    star = whole(task)
    guard = site(ended(task, view, star).payload())
    task.resident.focus((focus,))
    moved(task)
    guard.pull(task, 0.01)
    now = task.resident.arrays()
    other = "lora_B" if focus == "lora_A" else "lora_A"
    assert all(np.array_equal(now[name], star[name]) for name in now if name.endswith(other))
    assert worst(task, dense, star) < 2e-6
    task.resident.focus(("lora_A", "lora_B"))


@pytest.mark.parametrize("trained", [("lora_A", "lora_B"), ("lora_B",)])
def test_a_fold_counts_on_both_sides(small: Any, view: Any, dense: Any, trained: tuple[str, ...]) -> None:
    """The old pair has moved into the fold, and a new one has begun: B goes back to 0."""
    task = small.task(trained=trained)
    star, scale = whole(task), task.resident.spec.adapter.scale
    guard = site(ended(task, view, star).payload())
    fold = {}
    for module in modules(star):
        fold |= {f"{module}.fold_A": star[f"{module}.lora_A"], f"{module}.fold_B": scale * star[f"{module}.lora_B"]}
    task.resident.load({**task.resident.fresh(), **fold})
    moved(task)
    assert worst(task, dense, star) > 0.01
    guard.pull(task, 0.01)
    assert worst(task, dense, star) < 2e-6
    assert max(np.abs(v).max() for name, v in task.resident.arrays().items() if name.endswith("lora_B")) < 1e-5
    task.resident.reset()


def test_the_fold_of_the_old_adapter_is_part_of_the_anchor(small: Any, view: Any, dense: Any) -> None:
    task, draw = small.task(), np.random.default_rng(1)
    fold = {f"{QUERY}.fold_A": draw.normal(size=(2, 32)), f"{QUERY}.fold_B": draw.normal(size=(32, 2))}
    task.resident.load(fold)
    star = whole(task)
    guard = site(ended(task, view, star).payload())
    moved(task)
    guard.pull(task, 0.01)
    assert worst(task, dense, star) < 2e-6
    task.resident.reset()


def test_one_sweep_is_the_exact_step_of_b_and_then_of_a(small: Any, view: Any, dense: Any) -> None:
    """Finite strength: the gradient of the dense objective in each factor, given the other, is zero."""
    task = small.task()
    star, scale, strength = whole(task), task.resident.spec.adapter.scale, 0.7
    moved(task, size=0.2)
    start = whole(task)
    site(ended(task, view, star).payload(), strength / 0.01).pull(task, 0.01)
    now = whole(task)
    for module in (modules(star)[0], modules(star)[-1]):
        a0, a1, b0, b1 = (
            torch.from_numpy(source[f"{module}.{name}"]).double().requires_grad_()
            for name in ("lora_A", "lora_B")
            for source in (start, now)
        )
        target = torch.from_numpy(dense(star, module, scale))
        for moving, was, product in ((b1, b0, scale * b1 @ a0), (a1, a0, scale * b1 @ a1)):
            objective = 0.5 * (moving - was.detach()).square().sum() + strength / 2 * (product - target).square().sum()
            (gradient,) = torch.autograd.grad(objective, moving)
            assert float(gradient.abs().max()) < 1e-4 * float((moving - was).detach().abs().max())


def test_without_strength_or_in_the_first_stage_nothing_moves_bit_for_bit(small: Any, view: Any) -> None:
    task = small.task()
    server = ended(task, view, whole(task))
    moved(task)
    before = task.resident.theta.clone()
    site(server.payload(), 0.0).pull(task, 0.01)
    site(AnchorServer(PLAIN).payload()).pull(task, 0.01)
    assert torch.equal(task.resident.theta, before)


def test_a_site_of_lower_rank_goes_to_the_nearest_product_of_its_rank(small: Any, view: Any, dense: Any) -> None:
    """From many pulls: the best approximation by singular values. It never diverges."""
    wide = small.task(rank=3)
    star, scale = whole(wide), wide.resident.spec.adapter.scale
    payload = ended(wide, view, star).payload()
    task = small.task(rank=2)
    guard = site(payload)
    for _ in range(200):
        guard.pull(task, 0.01)
    now = whole(task)
    for module in (modules(star)[0], modules(star)[-1]):
        old = dense(star, module, scale)
        best = np.linalg.svd(old, compute_uv=False)[2]
        assert np.linalg.norm(dense(now, module, task.resident.spec.adapter.scale) - old) < 1.02 * best


def test_a_site_of_another_alpha_is_held_at_the_same_product(small: Any, view: Any, dense: Any) -> None:
    task = small.task()
    star, scale = whole(task), task.resident.spec.adapter.scale
    other = {name: value * (0.5 if name.endswith("lora_B") else 1.0) for name, value in star.items()}
    server = AnchorServer(PLAIN)
    server.on_stage_end(view(task, scale=2 * scale), other, other)
    moved(task)
    site(server.payload()).pull(task, 0.01)
    assert worst(task, dense, star) < 2e-6


def test_an_a_that_is_the_start_need_not_travel(small: Any, view: Any, dense: Any) -> None:
    task = small.task(trained=("lora_B",))
    task.resident.load({n: v for n, v in task.resident.fresh().items() if n.endswith("lora_A")})
    star = whole(task)
    without = {n: v for n, v in ended(task, view, star).payload().items() if not n.endswith("lora_A")}
    moved(task)
    site(without).pull(task, 0.01)
    assert worst(task, dense, star) < 2e-6


def test_a_trained_head_is_held_and_one_at_its_start_is_left_alone(small: Any, view: Any) -> None:
    task = small.task(head="trained")
    star, fresh = whole(task), task.resident.fresh()
    held = ended(task, view, star).payload()
    personal = ended(task, view, star | {n: v for n, v in fresh.items() if n.startswith("head.")}).payload()
    for payload, stays in ((held, True), (personal, False)):
        task.resident.load(star)
        moved(task)
        before = task.resident.arrays()
        site(payload).pull(task, 0.01)
        for name in ("head.weight", "head.bias"):
            now = task.resident.parameters[name].detach().numpy()
            assert np.allclose(now, star[name], atol=1e-6) == stays
            assert np.array_equal(now, before[name]) != stays
