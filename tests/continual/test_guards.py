from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards import SITE_GUARDS, SiteGuards
from llmchain_fl.core.ranges import Range
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.guards import GUARDS
from llmchain_fl.guards.distill import DistillServer
from llmchain_fl.guards.ema import EmaServer
from llmchain_fl.guards.protocol import View
from llmchain_fl.guards.server_guards import ServerGuards

KINDS = ["classification", "causal-lm"]
EMA = GuardSpec("ema", (("decay", 0.75),))
NOTHING: Any = None
VIEW = View(1, 0, ("first", "second"), False, 2.0, 1, before={}, probe=lambda arrays: {}, task=NOTHING)


def distill(weight: float = 1.0, temperature: float = 2.0) -> GuardSpec:
    return GuardSpec("distill", (("temperature", temperature), ("weight", weight)))


def payload(arrays: Arrays) -> Arrays:
    return {f"teacher.{name}": value for name, value in arrays.items()}


def sent(arrays: Arrays) -> Arrays:
    """What the server half sends: the teacher and its scale."""
    return payload(arrays) | {"teacher-scale.value": np.array([VIEW.scale], dtype=np.float32)}


def arrays(seed: int) -> Arrays:
    draw = np.random.default_rng(seed)
    return {
        "x.lora_A": draw.normal(size=(2, 3)).astype(np.float32),
        "x.lora_B": draw.normal(size=(4, 2)).astype(np.float32),
    }


def extra(task: Any, guards: SiteGuards, examples: Any, index: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(what the guards add to each record's loss, its gradient over the trained parameters)."""
    output = task.forward(examples, index)
    added = guards.example_loss(task, examples, index, output)
    if not added.requires_grad:
        return added, torch.zeros_like(task.resident.trained)
    found = torch.autograd.grad(added.sum(), [task.resident.parameters[name] for name in task.resident.trained_names])
    return added.detach(), torch.cat([g.reshape(-1) for g in found])


# -- at the site ------------------------------------------------------------------------------------------------------


def test_no_guard_at_the_site_adds_zeros(small: Any) -> None:
    task = small.task()
    output = task.forward(task.encode(small.rows(3)), [0, 1, 2])
    added = SiteGuards([], {}).example_loss(task, task.encode(small.rows(3)), [0, 1, 2], output)
    assert added.tolist() == [0.0, 0.0, 0.0]
    assert added.dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_distill_adds_exactly_zero_in_the_first_stage(small: Any, kind: str) -> None:
    task = small.task(kind)
    added, gradient = extra(
        task, SiteGuards([distill()], DistillServer({}).payload()), task.encode(small.rows(4, kind)), [0, 1, 2]
    )
    assert added.tolist() == [0.0] * 3
    assert not gradient.any()


@pytest.mark.parametrize(
    "settings", [{}, {"head": "trained"}, {"kind": "causal-lm"}, {"last_layers": 1, "cache_mb": 64}]
)
def test_a_teacher_that_is_the_student_adds_no_loss_and_no_gradient(small: Any, settings: dict[str, Any]) -> None:
    task = small.task(**settings)
    examples = task.encode(small.rows(4, settings.get("kind", "classification")))
    added, gradient = extra(task, SiteGuards([distill(100.0)], payload(task.resident.arrays())), examples, [0, 1, 2])
    assert added.abs().max() < 1e-3
    assert gradient.abs().max() < 1e-2
    other = {name: value * 0.5 for name, value in task.resident.arrays().items()}
    added, gradient = extra(task, SiteGuards([distill(100.0)], payload(other)), examples, [0, 1, 2])
    assert added.min() > 1.0
    assert gradient.abs().max() > 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_distill_is_the_weighted_divergence_from_the_teacher(small: Any, kind: str) -> None:
    """Against a task that really holds the teacher, not a swapped one."""
    task, rows = small.task(kind), small.rows(4, kind)
    examples, student = task.encode(rows), task.resident.arrays()
    teacher = {name: value * 0.5 for name, value in student.items()}
    added, _ = extra(task, SiteGuards([distill(3.0, 1.5)], payload(teacher)), examples, [0, 1, 3])
    task.resident.load(teacher)
    taught = task.forward(examples, [0, 1, 3])
    task.resident.load(student)
    expected = 3.0 * task.divergence(task.forward(examples, [0, 1, 3]), taught, 1.5)
    assert torch.allclose(added, expected.detach(), atol=1e-5)


def test_a_teacher_may_name_only_some_arrays(small: Any) -> None:
    """The others are at their start."""
    task = small.task()
    examples = task.encode(small.rows(3))
    other = {name: value * 0.5 for name, value in task.resident.arrays().items() if name.endswith("lora_B")}
    added, _ = extra(task, SiteGuards([distill()], payload(other)), examples, [0, 1])
    full = task.resident.fresh() | other
    assert torch.allclose(added, extra(task, SiteGuards([distill()], payload(full)), examples, [0, 1])[0], atol=1e-6)


def test_the_adapter_is_as_before_after_a_look_at_the_teacher(small: Any) -> None:
    task = small.task()
    before = task.resident.theta.clone()
    extra(task, SiteGuards([distill()], payload(task.resident.fresh())), task.encode(small.rows(3)), [0, 1])
    assert torch.equal(task.resident.theta, before)


def test_the_teacher_stays_the_same_while_the_student_moves(small: Any) -> None:
    task = small.task()
    examples, guards = task.encode(small.rows(3)), SiteGuards([distill()], payload(task.resident.arrays()))
    assert extra(task, guards, examples, [0])[0].abs().max() < 1e-4
    task.resident.theta.mul_(0.5)
    assert extra(task, guards, examples, [0])[0].min() > 1e-2


def test_a_large_weight_pulls_the_outputs_back_to_the_teacher(small: Any) -> None:
    """The same rounds with a heavy guard end nearer to the teacher, and with it the outputs hardly change."""
    from client.local import train_round

    def outputs(task: Any, examples: Any) -> torch.Tensor:
        return torch.softmax(task.forward(examples, range(8)).logits.detach(), dim=-1)

    def drift(guards: SiteGuards) -> float:
        task = small.task()
        examples = task.encode(small.rows(8))
        before, loop = outputs(task, examples), small.work(train={"batch_size": 8.0}).train
        train_round(task, examples, [small.units(range(8))] * 12, loop, None, guards, 0.003)
        return float((outputs(task, examples) - before).abs().mean())

    teacher = payload(small.task().resident.arrays())
    free, held = drift(SiteGuards([], {})), drift(SiteGuards([distill(1e3)], teacher))
    assert held < 0.35 * free


# -- at the server ----------------------------------------------------------------------------------------------------


def test_distill_sends_the_serving_adapter_of_the_last_stage_and_changes_nothing(small: Any) -> None:
    guard = DistillServer({"weight": 1.0, "temperature": 2.0})
    assert guard.payload() == {}
    assert digest(guard.serve(VIEW, arrays(1))) == digest(arrays(1))
    assert digest(guard.on_stage_end(VIEW, arrays(1), arrays(2))) == digest(arrays(1))
    assert digest(guard.payload()) == digest(sent(arrays(2)))


def test_ema_follows_the_global_adapter_in_the_first_stage() -> None:
    guard = EmaServer({"decay": 0.75})
    for seed in (1, 2, 3):
        assert digest(guard.serve(VIEW, arrays(seed))) == digest(arrays(seed))
    assert guard.payload() == {}


def test_ema_is_its_formula_from_the_second_stage_on() -> None:
    guard = EmaServer({"decay": 0.75})
    serving = guard.serve(VIEW, arrays(1))
    assert digest(guard.on_stage_end(VIEW, arrays(1), serving)) == digest(arrays(1))
    average = {name: value.astype(np.float64) for name, value in arrays(1).items()}
    for seed in (2, 3, 4):
        serving = guard.serve(VIEW, arrays(seed))
        average = {name: 0.75 * average[name] + 0.25 * value for name, value in arrays(seed).items()}
        assert all(np.allclose(serving[name], average[name], atol=1e-6) for name in average)
    start = guard.on_stage_end(VIEW, arrays(4), serving)
    assert digest(start) == digest(serving) != digest(arrays(4))


def test_ema_without_decay_is_the_global_adapter_and_a_constant_one_is_reached() -> None:
    none, slow = EmaServer({"decay": 0.0}), EmaServer({"decay": 0.9})
    for guard in (none, slow):
        guard.on_stage_end(VIEW, arrays(1), arrays(1))
    assert digest(none.serve(VIEW, arrays(2))) == digest(arrays(2))
    for _ in range(200):
        serving = slow.serve(VIEW, arrays(2))
    assert all(np.allclose(serving[name], value, atol=1e-5) for name, value in arrays(2).items())


def test_what_a_guard_handed_out_is_not_changed_by_a_later_round() -> None:
    guard = EmaServer({"decay": 0.5})
    guard.on_stage_end(VIEW, arrays(1), arrays(1))
    first = guard.serve(VIEW, arrays(2))
    before = digest(first)
    guard.serve(VIEW, arrays(3))
    assert digest(first) == before


def test_guards_are_composed_in_their_order() -> None:
    guards = ServerGuards([distill(), EMA])
    assert digest(guards.serve(VIEW, arrays(1))) == digest(arrays(1))
    assert digest(guards.on_stage_end(VIEW, arrays(1), arrays(1))) == digest(arrays(1))
    serving = guards.serve(VIEW, arrays(2))
    expected = {name: 0.75 * arrays(1)[name] + 0.25 * value for name, value in arrays(2).items()}
    assert all(np.allclose(serving[name], expected[name], atol=1e-6) for name in expected)
    assert digest(guards.payload()) == digest(sent(arrays(1)))
    assert digest(guards.on_stage_end(VIEW, arrays(2), serving)) == digest(serving)
    assert digest(guards.payload()) == digest(sent(serving))


def test_the_state_of_all_guards_survives(small: Any) -> None:
    guards = ServerGuards([distill(), EMA])
    guards.on_stage_end(VIEW, arrays(1), arrays(1))
    guards.serve(VIEW, arrays(2))
    again = ServerGuards([distill(), EMA])
    again.load_state(guards.state())
    assert digest(again.payload()) == digest(guards.payload())
    assert digest(again.serve(VIEW, arrays(3))) == digest(guards.serve(VIEW, arrays(3)))


def test_a_guard_without_saved_state_keeps_its_start() -> None:
    guards = ServerGuards([distill(), EMA])
    guards.load_state({})
    guards.load_state({"unknown": arrays(1)})
    assert guards.payload() == {}
    assert digest(guards.serve(VIEW, arrays(2))) == digest(arrays(2))


def test_no_guard_changes_nothing() -> None:
    guards = ServerGuards([])
    assert (
        digest(guards.serve(VIEW, arrays(1)))
        == digest(guards.on_stage_end(VIEW, arrays(1), arrays(2)))
        == digest(arrays(1))
    )
    assert (guards.payload(), guards.state()) == ({}, {})


def test_a_guard_declares_its_own_name_its_half_at_a_site_and_a_default_for_every_setting() -> None:
    assert {name: guard.name for name, guard in GUARDS.items()} == {name: name for name in GUARDS}
    assert {name: guard.site for name, guard in GUARDS.items() if guard.site} == dict(SITE_GUARDS)
    for guard in GUARDS.values():
        settings = guard.settings()
        assert guard.claim in ("in-step", "post-processing", "charged")
        assert (settings.records == "own") == (settings.claim == "charged")
        assert set(guard.idle_at_zero) <= set(settings.plain())
        assert set(guard.site.bounds if guard.site else ()) <= set(settings.plain())


@pytest.mark.parametrize("name", SITE_GUARDS)
def test_a_setting_that_the_configuration_takes_is_one_that_a_site_takes(name: str) -> None:
    fields = GUARDS[name].settings.model_fields
    for key, bound in SITE_GUARDS[name].bounds.items():
        if isinstance(bound, Range):
            found = {
                sign: getattr(part, sign)
                for part in fields[key].metadata
                for sign in ("ge", "gt", "le", "lt")
                if hasattr(part, sign)
            }
            assert found == {"gt" if bound.above else "ge": bound.low, "lt" if bound.below else "le": bound.high}
        else:
            assert set(get_args(fields[key].annotation)) == set(bound)
