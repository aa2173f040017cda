"""The guard ``olora``: both halves. That it acts in the real loop: test_guards_act.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.product import modules
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards.olora import OloraSite
from llmchain_fl.guards.olora import OloraServer, compressed, overlap

SETTINGS = {"strength": 1.0, "form": "squared", "rows": 64.0}
SHAPES = {"x.lora_A": (2, 9), "x.lora_B": (7, 2), "y.lora_A": (2, 6), "y.lora_B": (5, 2)}


def adapter(seed: int, **changes: Any) -> Arrays:
    draw = np.random.default_rng(seed)
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()} | changes


def old_rows(task: Any, seed: int = 1, count: int = 4) -> Arrays:
    draw = np.random.default_rng(seed)
    shapes = {name: shape for name, shape in task.resident.shapes.items() if name.endswith("lora_A")}
    return {
        f"olora-rows.{name.removesuffix('.lora_A')}": draw.normal(size=(count, shape[1])).astype(np.float32)
        for name, shape in shapes.items()
    }


def products(task: Any, rows: Arrays) -> np.ndarray:
    """All entries of A A_old^T, side by side."""
    now = task.resident.arrays()
    found = [now[f"{m.removeprefix('olora-rows.')}.lora_A"].astype(np.float64) @ v.T for m, v in rows.items()]
    return np.concatenate([one.reshape(-1) for one in found])


# -- at the site ------------------------------------------------------------------------------------------------------


def test_endless_strength_makes_the_rows_orthogonal_and_takes_nothing_else(small: Any) -> None:
    task = small.task()
    rows, before = old_rows(task), task.resident.arrays()
    assert np.abs(products(task, rows)).max() > 1.0
    OloraSite({**SETTINGS, "strength": 1e30}, rows).pull(task, 0.01)
    assert np.abs(products(task, rows)).max() < 1e-5
    now = task.resident.arrays()
    for name, value in before.items():
        if name.endswith("lora_B"):
            assert np.array_equal(now[name], value)
        else:
            q = np.linalg.qr(rows[f"olora-rows.{name.removesuffix('.lora_A')}"].T.astype(np.float64)).Q
            assert np.allclose(now[name], value - value @ q @ q.T, atol=1e-5)


@given(st.floats(1e-2, 1e3))
def test_a_pull_is_the_exact_proximal_step_of_the_squared_form(small: Any, strength: float) -> None:
    task = small.task(last_layers=1, targets=("query",))
    rows, (name,) = old_rows(task), [n for n in task.resident.shapes if n.endswith("lora_A")]
    was = task.resident.parameters[name].detach().clone().double()
    OloraSite({**SETTINGS, "strength": strength}, rows).pull(task, 0.01)
    now = task.resident.parameters[name].detach().clone().double().requires_grad_()
    old = torch.from_numpy(next(iter(rows.values()))).double()
    objective = 0.5 * (now - was).square().sum() + 0.01 * strength / 2 * (now @ old.T).square().sum()
    (gradient,) = torch.autograd.grad(objective, now)
    assert float(gradient.abs().max()) < 1e-5 * max(1.0, 0.01 * strength * 100)


def test_the_released_form_is_the_sum_of_absolute_values_as_a_penalty(small: Any) -> None:
    task = small.task()
    rows = old_rows(task)
    guard = OloraSite({**SETTINGS, "form": "l1", "strength": 0.5}, rows)
    before = task.resident.theta.clone()
    penalty = guard.penalty(task)
    assert penalty is not None
    assert float(penalty.detach()) == pytest.approx(0.5 * np.abs(products(task, rows)).sum(), rel=1e-5)
    guard.pull(task, 0.01)
    assert torch.equal(task.resident.theta, before)
    assert OloraSite(SETTINGS, rows).penalty(task) is None


def test_the_released_form_comes_as_near_as_a_step_of_adam(small: Any) -> None:
    from client.local import train_round
    from llmchain_fl.core.guards import SiteGuards
    from llmchain_fl.core.work import GuardSpec

    task = small.task()
    rows, examples = old_rows(task), task.encode(small.rows(4))
    far = np.abs(products(task, rows)).mean()
    specs = [GuardSpec("olora", tuple({**SETTINGS, "form": "l1", "strength": 1e4}.items()))]
    loop = small.work(train={"batch_size": 4.0}).train
    result = train_round(task, examples, [small.units(range(4))] * 60, loop, None, SiteGuards(specs, rows), 0.01)
    assert np.abs(products(task, rows)).mean() < 0.3 * far
    assert result.penalty > 1.0


@pytest.mark.parametrize("form", ["squared", "l1"])
@pytest.mark.parametrize("case", ["no strength", "first stage", "B alone"])
def test_nothing_moves_bit_for_bit(small: Any, form: str, case: str) -> None:
    task = small.task(trained=("lora_B",)) if case == "B alone" else small.task()
    rows = {} if case == "first stage" else old_rows(task)
    guard = OloraSite({**SETTINGS, "form": form, "strength": 0.0 if case == "no strength" else 1e9}, rows)
    before = task.resident.theta.clone()
    assert guard.penalty(task) is None
    guard.pull(task, 0.01)
    assert torch.equal(task.resident.theta, before)


# -- at the server ----------------------------------------------------------------------------------------------------


def test_a_stages_pair_goes_into_the_fold_and_the_product_stays(view: Any, dense: Any) -> None:
    guard, arrays = OloraServer(SETTINGS), adapter(1)
    one = guard.on_stage_end(view(), arrays, arrays)
    two = one | {name: value for name, value in adapter(2).items() if name.endswith("lora_B")}
    three = guard.on_stage_end(view(stage=1), two, two)
    for module in ("x", "y"):
        assert np.allclose(dense(one, module), dense(arrays, module), atol=1e-5)
        assert np.allclose(dense(three, module), dense(two, module), atol=1e-4)
        assert not one[f"{module}.lora_B"].any()
        assert three[f"{module}.fold_A"].shape[0] == 4
        assert not np.array_equal(one[f"{module}.lora_A"], three[f"{module}.lora_A"])
        assert np.abs(one[f"{module}.lora_A"]).max() <= one[f"{module}.lora_A"].shape[1] ** -0.5
    assert digest(arrays) == digest(adapter(1))


def test_the_fold_never_has_more_rank_than_the_matrix(view: Any, dense: Any) -> None:
    guard = OloraServer(SETTINGS)
    current, stages = adapter(0), tuple("abcdefgh")
    for stage in range(7):
        current = current | {n: v for n, v in adapter(stage).items() if n.endswith("lora_B")}
        after = guard.on_stage_end(view(stage=stage, stages=stages), current, current)
        for module, most in (("x", 7), ("y", 5)):
            assert after[f"{module}.fold_A"].shape[0] <= most
            assert np.allclose(dense(after, module), dense(current, module), atol=1e-3)
        current = after


def test_the_rows_of_all_earlier_stages_are_sent(view: Any) -> None:
    guard, arrays = OloraServer(SETTINGS), adapter(1)
    assert guard.payload() == {}
    guard.on_stage_end(view(), arrays, arrays)
    guard.on_stage_end(view(stage=1), adapter(2), arrays)
    sent = guard.payload()
    assert set(sent) == {"olora-rows.x", "olora-rows.y"}
    assert np.array_equal(sent["olora-rows.x"], np.vstack([adapter(1)["x.lora_A"], adapter(2)["x.lora_A"]]))


def test_the_payload_is_bounded_and_its_rows_weigh_the_same_below_the_bound() -> None:
    draw = np.random.default_rng(1)
    rows = (draw.normal(size=(10, 3)) @ draw.normal(size=(3, 8))).astype(np.float32)
    few = compressed(rows, 3)
    assert few.shape == (3, 8)
    assert np.allclose(few.T @ few, rows.T @ rows, atol=1e-4)
    assert compressed(rows, 2).shape == (2, 8)
    values = np.linalg.svd(rows.astype(np.float64), compute_uv=False)
    left = np.linalg.norm(rows.T @ rows - compressed(rows, 2).T @ compressed(rows, 2))
    assert left == pytest.approx(values[2] ** 2, rel=1e-3)
    assert compressed(rows, 10) is rows


def test_a_stage_that_learnt_nothing_leaves_everything(view: Any) -> None:
    guard = OloraServer(SETTINGS)
    fresh = adapter(1) | {n: np.zeros(s, np.float32) for n, s in SHAPES.items() if n.endswith("lora_B")}
    assert digest(guard.on_stage_end(view(), fresh, fresh)) == digest(fresh)
    assert guard.payload() == {}


def test_nothing_changes_after_the_last_stage(view: Any) -> None:
    guard = OloraServer(SETTINGS)
    assert digest(guard.on_stage_end(view(stage=2), adapter(1), adapter(1))) == digest(adapter(1))
    assert guard.payload() == {}


def test_the_overlap_that_is_told_is_the_share_of_energy_in_the_old_rows(view: Any) -> None:
    guard, old = OloraServer(SETTINGS), adapter(1)
    guard.step(view(), old)
    assert guard.notes() == {}
    guard.on_stage_end(view(), old, old)
    guard.step(view(), old)
    assert guard.notes()["overlap"] == pytest.approx(1.0, abs=1e-6)
    q = {m: np.linalg.qr(old[f"{m}.lora_A"].T.astype(np.float64)).Q for m in ("x", "y")}
    away = {f"{m}.lora_A": adapter(3)[f"{m}.lora_A"] for m in ("x", "y")}
    away = {n: v - v @ q[n[0]] @ q[n[0]].T for n, v in away.items()}
    guard.step(view(), old | away)
    assert guard.notes()["overlap"] == pytest.approx(0.0, abs=1e-10)
    assert 0.01 < overlap(adapter(4), {m: old[f"{m}.lora_A"] for m in ("x", "y")}) < 0.9


def test_the_state_survives(view: Any) -> None:
    guard, again = OloraServer(SETTINGS), OloraServer(SETTINGS)
    guard.on_stage_end(view(), adapter(1), adapter(1))
    again.load_state(guard.state())
    one, two = (g.on_stage_end(view(stage=1), adapter(2), adapter(2)) for g in (guard, again))
    assert digest(one) == digest(two)
    assert digest(guard.payload()) == digest(again.payload())
    assert guard.payload().keys() == again.payload().keys()


def test_pulls_on_a_real_adapter_touch_every_module(small: Any) -> None:
    task = small.task()
    before = task.resident.arrays()
    OloraSite(SETTINGS, old_rows(task)).pull(task, 0.01)
    now = task.resident.arrays()
    assert all(not np.array_equal(now[f"{m}.lora_A"], before[f"{m}.lora_A"]) for m in modules(now))
