"""Slots: what the new stage may not touch, on a real (tiny) model, and against dense products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.optimizers import ServerOptimizer
from llmchain_fl.aggregation.rule import SiteFactors
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards import SITE_GUARDS, SiteGuards
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.guards import GUARDS
from llmchain_fl.guards.protocol import View
from llmchain_fl.guards.server_guards import ServerGuards
from llmchain_fl.guards.slots import SlotsServer

SCALE = 2.0
STAGES = ("cards", "fraud", "loans")


def view(task: Any, stage: int = 0, rows: Any = (), stages: tuple[str, ...] = STAGES, seed: int = 7) -> View:
    told = {"round": stage + 1, "stage": stage, "stages": stages, "last": True, "scale": SCALE, "seed": seed}
    public = task.encode(rows) if rows else None
    return View(**told, before={}, probe=lambda arrays: {}, task=task, public=public, public_rows=tuple(rows))


def learnt(arrays: Arrays, seed: int) -> Arrays:
    """Any other B in every pair."""
    draw = np.random.default_rng(seed)
    return {n: draw.normal(size=v.shape).astype(np.float32) if n.endswith("lora_B") else v for n, v in arrays.items()}


def modules(arrays: Arrays) -> list[str]:
    return [name.removesuffix(".lora_B") for name in arrays if name.endswith(".lora_B")]


def dense(arrays: Arrays, module: str, pair: float = SCALE) -> Any:
    """Delta W, d_out x d_in, float64."""
    a, b = arrays[f"{module}.lora_A"].astype(np.float64), arrays[f"{module}.lora_B"].astype(np.float64)
    fold = [arrays[f"{module}.{end}"].astype(np.float64) for end in ("fold_B", "fold_A") if f"{module}.{end}" in arrays]
    return pair * b @ a + (fold[0] @ fold[1] if fold else 0.0)


def after_first(task: Any, rows: Any, share: float = 0.5, **more: Any) -> tuple[SlotsServer, Arrays, Arrays]:
    """(guard, adapter at the end of the first stage, what the second one begins with)."""
    guard, first = SlotsServer({"share": share}), learnt(task.resident.fresh(), 1)
    told = view(task, 0, rows, **more)
    current = guard.step(told, first)
    return guard, first, guard.on_stage_end(told, current, guard.serve(told, current))


def logits(task: Any, arrays: Arrays, examples: Any) -> torch.Tensor:
    """Of all records, one by one: what a decoder says to padding is nobody's output."""
    task.resident.reset()
    task.resident.load(arrays)
    with torch.no_grad():
        return torch.cat([task.forward(examples, [i]).logits.flatten() for i in range(len(examples))])


# -- what is protected ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classification", "causal-lm"])
def test_no_new_b_can_change_the_outputs_on_protected_records(small: Any, kind: str) -> None:
    """Two short records span fewer directions than are kept, so all of their inputs are protected, in every layer."""
    task, rows = small.task(kind), small.rows(2, kind, seed=4)
    _, first, second = after_first(task, rows)
    examples, others = task.encode(rows), task.encode(small.rows(6, kind, seed=8))
    before, elsewhere = logits(task, first, examples), logits(task, first, others)
    assert torch.allclose(logits(task, second, examples), before, atol=1e-4)
    assert torch.allclose(logits(task, second, others), elsewhere, atol=1e-4)
    for seed in (2, 3):
        moved = learnt(second, seed)
        assert torch.allclose(logits(task, moved, examples), before, atol=1e-3)
        assert (logits(task, moved, others) - elsewhere).abs().max() > 0.1


def test_nothing_of_the_new_product_is_in_the_protected_space(small: Any) -> None:
    task = small.task()
    guard, _, second = after_first(task, small.rows(8), share=0.2)
    moved = learnt(second, 2)
    for module in modules(second):
        basis = guard.state()[f"basis/{module}"].astype(np.float64)
        new = SCALE * moved[f"{module}.lora_B"].astype(np.float64) @ moved[f"{module}.lora_A"]
        assert np.linalg.norm(new @ basis.T) < 1e-6 * np.linalg.norm(new)
        width = basis.shape[1]
        assert len(basis) == 3 + int(0.2 * width)  # the old A, and a fifth of the inputs


def test_what_is_protected_are_the_directions_in_which_public_inputs_are_longest(small: Any) -> None:
    """Against the singular vectors of the inputs of one layer, caught record by record."""
    task, rows = small.task(), small.rows(8)
    guard, first, _ = after_first(task, rows, share=0.2)
    module = "encoder.layer.2.output.dense"
    inputs = caught(task, first, rows, module)
    a = first[f"{module}.lora_A"].astype(np.float64)
    outside = inputs - inputs @ np.linalg.pinv(a) @ a
    directions = np.linalg.svd(outside, full_matrices=False)[2][: int(0.2 * inputs.shape[1])]
    basis = guard.state()[f"basis/{module}"].astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(directions @ basis.T, axis=1), 1.0, atol=1e-4)


def caught(task: Any, arrays: Arrays, rows: Any, module: str) -> Any:
    """All inputs of a layer, one record at a time so that nothing is padded."""
    found: list[torch.Tensor] = []
    task.resident.reset()
    task.resident.load(arrays)
    layer = task.resident.base.module.get_submodule(module)
    hook = layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach()[0]))
    examples = task.encode(rows)
    with torch.no_grad():
        for i in range(len(examples)):
            task.forward(examples, [i])
    hook.remove()
    return torch.cat(found).double().numpy()


def test_with_no_share_only_the_old_factors_are_protected_and_no_record_is_needed(small: Any) -> None:
    _, first, second = after_first(small.task(), (), share=0.0)
    for module in modules(first):
        a, old = second[f"{module}.lora_A"].astype(np.float64), first[f"{module}.lora_A"].astype(np.float64)
        assert np.abs(a @ old.T).max() < 1e-6
        np.testing.assert_allclose(a @ a.T, np.eye(3) / 3, atol=1e-6)


# -- what a stage leaves behind ---------------------------------------------------------------------------------------


def test_the_serving_product_is_the_sum_of_the_slots(small: Any) -> None:
    task, rows = small.task(), small.rows(8)
    guard, current = SlotsServer({"share": 0.1}), task.resident.fresh()
    total = dict.fromkeys(modules(current), 0.0)
    for stage in range(3):
        current = guard.step(view(task, stage, rows), learnt(current, stage))
        total = {module: total[module] + dense({n: v for n, v in current.items() if "fold" not in n}, module)
                 for module in total}  # fmt: skip
        serving = guard.serve(view(task, stage, rows), current)
        assert serving["slots.pair"].tolist() == [stage + 1.0] * 3
        assert serving.get("slots.fold", np.zeros(0)).tolist() == [s + 1.0 for s in range(stage) for _ in range(3)]
        for module in total:
            assert np.array_equal(dense(serving, module), total[module]) or stage
            np.testing.assert_allclose(
                dense(serving, module), total[module], rtol=0, atol=1e-6 * abs(total[module]).max()
            )
        current = guard.on_stage_end(view(task, stage, rows), current, serving)
    assert digest(current) == digest({n: v for n, v in serving.items() if not n.startswith("slots.")})  # the last stage


def test_a_new_stage_starts_from_the_product_of_the_last_one(small: Any) -> None:
    _, first, second = after_first(small.task(), small.rows(8))
    assert all(np.array_equal(dense(first, module), dense(second, module)) for module in modules(first))
    assert not any(value.any() for name, value in second.items() if name.endswith("lora_B"))


def test_the_same_seed_draws_the_same_factors_and_another_one_does_not(small: Any) -> None:
    task, rows = small.task(), small.rows(8)
    second = after_first(task, rows)[2]
    assert digest(after_first(task, rows)[2]) == digest(second)
    name = f"{modules(second)[0]}.lora_A"
    assert np.abs(after_first(task, rows, seed=8)[2][name] - second[name]).max() > 0.05


def test_what_is_handed_on_survives_a_file(small: Any) -> None:
    """safetensors writes memory as it lies: an array in Fortran order would come back as another one."""
    from safetensors.numpy import load, save

    task, rows = small.task(), small.rows(8)
    guard, _, second = after_first(task, rows)
    told = view(task, 1, rows)
    pushed = {n: v + 0.1 if n.endswith("lora_A") else v for n, v in second.items()}
    for arrays in (second, guard.state(), guard.serve(told, second), guard.step(told, pushed)):
        assert digest(load(save(dict(arrays)))) == digest(arrays)


def test_a_saved_guard_goes_on_as_one_that_never_stopped(small: Any) -> None:
    task, rows = small.task(), small.rows(8)
    guard, _, second = after_first(task, rows)
    other = SlotsServer({"share": 0.5})
    other.load_state(guard.state())
    moved, told = learnt({n: v + 0.1 if n.endswith("lora_A") else v for n, v in second.items()}, 2), view(task, 1, rows)
    ends = [g.on_stage_end(told, g.step(told, moved), g.serve(told, moved)) for g in (guard, other)]
    assert digest(ends[0]) == digest(ends[1])
    assert digest(guard.state()) == digest(other.state())
    assert guard.notes() == other.notes()


# -- after the aggregate ----------------------------------------------------------------------------------------------


def spread(arrays: Arrays, seed: int, how: str) -> Arrays:
    """What three sites that keep out of the protected space make of A, and an aggregator of that."""
    draw = np.random.default_rng(seed)
    sites = [
        {n: v @ (np.eye(v.shape[1]) + 0.0) + _inside(v, draw) if n.endswith("lora_A") else v for n, v in arrays.items()}
        for _ in range(3)
    ]
    if how == "adam":
        total = ServerOptimizer(RULES["fedit"], "adam").start(arrays, SCALE)
        for site in sites:
            total.add(SiteFactors({n: v.astype(np.float32) for n, v in site.items()}, SCALE, 1.0))
        return dict(total.finish())
    moved = {n: np.median([site[n] for site in sites], axis=0).astype(np.float32) for n in arrays}
    if how == "noise":
        moved = {n: v + draw.normal(scale=0.1, size=v.shape).astype(np.float32) for n, v in moved.items()}
    return moved


def _inside(a: Any, draw: Any) -> Any:
    """A step within the rows of A, so orthogonal to whatever A is orthogonal to."""
    return 0.3 * draw.normal(size=(len(a), len(a))) @ a


@pytest.mark.parametrize("how", ["adam", "median", "noise"])
def test_what_an_aggregator_lets_into_the_protected_space_is_taken_out_again(small: Any, how: str) -> None:
    task = small.task()
    guard, _, second = after_first(task, small.rows(8))
    moved = spread({n: v for n, v in second.items() if "fold" not in n}, 3, how)
    mended = guard.step(view(task, 1), {**second, **moved})
    assert guard.notes()["leak"] > 0.05
    for module in modules(second):
        basis = guard.state()[f"basis/{module}"].astype(np.float64)
        a = moved[f"{module}.lora_A"].astype(np.float64)
        left = mended[f"{module}.lora_A"].astype(np.float64)
        assert np.linalg.norm(left @ basis.T) < 1e-6 * np.linalg.norm(left)
        outside = np.linalg.svd(basis)[2][len(basis) :]  # what is not protected is not touched
        np.testing.assert_allclose(left @ outside.T, a @ outside.T, atol=1e-6)
    assert digest({n: v for n, v in mended.items() if not n.endswith("lora_A")}) == digest(
        {n: v for n, v in {**second, **moved}.items() if not n.endswith("lora_A")}
    )


def test_a_factor_that_has_not_moved_comes_back_bit_for_bit(small: Any) -> None:
    task = small.task()
    guard, _, second = after_first(task, small.rows(8))
    moved = learnt(second, 5)
    assert digest(guard.step(view(task, 1), moved)) == digest(moved)
    assert guard.notes()["leak"] < 1e-6


def test_training_at_a_site_cannot_move_protected_outputs_and_moves_others(small: Any) -> None:
    from client.local import train_round

    task, rows = small.task(trained=("lora_B",)), small.rows(2, seed=4)
    _, _, second = after_first(task, rows)
    examples, others = task.encode(rows), task.encode(small.rows(8, seed=8))
    before, elsewhere = logits(task, second, examples), logits(task, second, others)
    loop = small.work(train={"batch_size": 8.0}).train
    result = train_round(task, others, [small.units(range(8))] * 10, loop, None, SiteGuards([], {}), 0.05)
    trained = {**second, **result.arrays}
    assert torch.allclose(logits(task, trained, examples), before, atol=1e-3)
    assert (logits(task, trained, others) - elsewhere).abs().max() > 1.0


def test_only_the_public_records_of_the_ended_stage_are_looked_at(small: Any) -> None:
    task = small.task()
    mine, others = small.rows(2, seed=4), small.rows(6, seed=8)
    named = [{**row, "stage": "cards"} for row in mine] + [{**row, "stage": "fraud"} for row in others]
    assert digest(after_first(task, named)[2]) == digest(after_first(task, mine)[2])


def test_the_table_knows_the_guard_and_it_has_no_half_at_a_site(small: Any) -> None:
    task = small.task()
    spec = GuardSpec("slots", (("share", 0.0),))
    guards, told = ServerGuards([spec]), view(task)
    current = guards.step(told, learnt(task.resident.fresh(), 1))
    after = guards.on_stage_end(told, current, guards.serve(told, current))
    assert any(name.endswith("fold_A") for name in after)
    assert guards.payload() == {}
    assert {(note.guard, note.key) for note in guards.notes()} == {("slots", key) for key in GUARDS["slots"].notes}
    assert "slots" not in SITE_GUARDS
