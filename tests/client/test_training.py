from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from client.local import OPTIMIZERS, train_round
from client.training import LocalResult
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.errors import TrainingError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.work import GuardSpec

BATCHES = [[0, 2, 5], [], [1], [3, 4, 0, 7]]


def play(
    small: Any,
    batches: Sequence[Sequence[int]] = BATCHES,
    *,
    lr: float = 0.01,
    plan: Any = None,
    guards: Sequence[Any] = (),
    task: Any = None,
    **train: Any,
) -> tuple[Any, LocalResult]:
    """(task, result) of one round from a moved adapter."""
    task = task or small.task()
    examples = small.fixed(task.encode(small.rows(8)))
    drawn = [small.units(batch) for batch in batches]
    return task, train_round(task, examples, drawn, small.work(train=train).train, plan, SiteGuards(guards, {}), lr)


@pytest.mark.parametrize("private", [False, True])
def test_steps_records_and_tokens_are_counted(small: Any, private: bool) -> None:
    task, result = play(small, plan=small.plan() if private else None)
    examples = task.encode(small.rows(8))
    drawn = [i for batch in BATCHES for i in batch]
    assert (result.steps, result.records) == (4, 8)
    assert result.tokens == sum(examples.length(i) for i in drawn)


def test_the_result_holds_the_trained_arrays_and_the_model_the_same(small: Any) -> None:
    task = small.task(trained=("lora_B",))
    before = task.resident.arrays()
    _, result = play(small, task=task)
    assert set(result.arrays) == {name for name in task.resident.shapes if name.endswith("lora_B")}
    assert digest(result.arrays) == digest(task.resident.arrays(task.resident.trained_names))
    after = task.resident.arrays()
    assert all(np.array_equal(before[name], after[name]) for name in before if name.endswith("lora_A"))
    assert not any(np.array_equal(before[name], after[name]) for name in result.arrays)


def test_one_step_of_sgd_is_the_hand_formula(small: Any) -> None:
    """theta - lr / b * sum of gradients, twice: momentum 0 and, from the second step on, momentum m."""
    task = small.task()
    examples, start = task.encode(small.rows(8)), task.resident.trained.clone()
    parameters = [task.resident.parameters[name] for name in task.resident.trained_names]

    def gradient(index: Sequence[int]) -> torch.Tensor:
        loss = task.losses(task.forward(examples, index)).sum()
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)]) / 5.0

    first = gradient([0, 2, 5])
    task.resident.trained.sub_(0.1 * first)
    second = gradient([1, 3])
    expected = start - 0.1 * first - 0.1 * (0.5 * first + second)
    task.resident.trained.copy_(start)
    play(small, [[0, 2, 5], [1, 3]], lr=0.1, task=task, optimizer="sgd", momentum=0.5, batch_size=5.0)
    assert torch.allclose(task.resident.trained, expected, atol=1e-6)


def test_the_first_step_of_adam_moves_each_parameter_by_the_learning_rate(small: Any) -> None:
    task = small.task()
    start = task.resident.trained.clone()
    play(small, [[0, 1, 2, 3, 4, 5, 6, 7]], lr=0.01, task=task)
    moved = (task.resident.trained - start).abs()
    assert float((moved - 0.01).abs().median()) < 1e-5


def test_nothing_moves_with_a_learning_rate_of_zero_and_that_is_an_error(small: Any) -> None:
    with pytest.raises(TrainingError, match="changed no parameter"):
        play(small, lr=0.0)


@pytest.mark.parametrize("batches", [BATCHES, [[], []]])
def test_with_noise_it_is_none_whoever_was_drawn(small: Any, batches: list[list[int]]) -> None:
    """An error where records were drawn, and none where not, would tell one from the other."""
    task = small.task()
    start = task.resident.theta.clone()
    play(small, batches, task=task, lr=0.0, plan=small.plan())
    assert torch.equal(task.resident.theta, start)


def test_records_without_a_gradient_are_an_error(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small.task()
    monkeypatch.setattr(task, "losses", lambda output: 0.0 * output.logits.sum(dim=1))
    with pytest.raises(TrainingError, match="changed no parameter"):
        play(small, task=task)


def test_a_round_in_which_nobody_was_drawn_is_fine_and_changes_nothing(small: Any) -> None:
    task = small.task()
    start = task.resident.theta.clone()
    _, result = play(small, [[], []], task=task)
    assert (result.steps, result.records) == (2, 0)
    assert torch.equal(task.resident.theta, start)


def test_a_private_round_in_which_nobody_was_drawn_moves_by_noise(small: Any) -> None:
    task = small.task()
    start = task.resident.theta.clone()
    play(small, [[], []], task=task, plan=small.plan())
    assert not torch.equal(task.resident.theta, start)


@pytest.mark.parametrize("lr", [float("nan"), float("inf"), -0.1])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_learning_rate_that_is_none_is_an_error(small: Any, lr: float, optimizer: str) -> None:
    with pytest.raises(TrainingError, match="learning rate is"):
        play(small, lr=lr, optimizer=optimizer)


@pytest.mark.parametrize("private", [False, True])
def test_an_adapter_that_is_not_finite_is_an_error(small: Any, private: bool) -> None:
    with pytest.raises(TrainingError, match="not finite"):
        play(small, lr=3e38, optimizer="sgd", batch_size=1e-3, plan=small.plan() if private else None)


def test_a_loss_that_is_not_finite_is_an_error_without_privacy(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small.task()
    plain = task.losses
    monkeypatch.setattr(task, "losses", lambda output: plain(output) * torch.nan)
    with pytest.raises(TrainingError, match="not finite"):
        play(small, task=task)


def test_the_micro_batch_does_not_change_the_result(small: Any) -> None:
    found = [play(small, micro_batch=size, optimizer="sgd")[0].resident.theta.clone() for size in (1, 3, 64)]
    assert torch.allclose(found[0], found[1], atol=1e-5)
    assert torch.allclose(found[0], found[2], atol=1e-5)


def test_the_same_batches_give_the_same_adapter(small: Any) -> None:
    assert torch.equal(play(small)[0].resident.theta.clone(), play(small)[0].resident.theta.clone())


def test_training_lowers_the_loss(small: Any) -> None:
    task = small.task(moved=0.0)
    task.resident.reset()
    examples = task.encode(small.rows(8))
    before = task.score(examples)["loss"]
    play(small, [range(8)] * 10, task=task, lr=0.01, batch_size=8.0)
    assert task.score(examples)["loss"] < 0.8 * before


def test_guards_are_part_of_what_is_trained_on(small: Any) -> None:
    """The same round with a teacher ends elsewhere."""
    plain = play(small)[0].resident.theta.clone()
    task = small.task()
    teacher = {f"teacher.{name}": value for name, value in task.resident.fresh().items()}
    guards = SiteGuards([GuardSpec("distill", (("temperature", 2.0), ("weight", 5.0)))], teacher)
    train_round(
        task,
        task.encode(small.rows(8)),
        [small.units(batch) for batch in BATCHES],
        small.work().train,
        None,
        guards,
        0.01,
    )
    assert not torch.allclose(task.resident.theta, plain, atol=1e-3)


def test_the_state_of_the_optimiser_does_not_survive_the_round() -> None:
    for make in OPTIMIZERS.values():
        assert not make(torch.nn.Parameter(torch.zeros(2)), 0.1, 0.9).state


PEOPLE = [[[0, 2, 5], [1]], [], [[3, 4, 7, 6]]]


@pytest.mark.parametrize("private", [False, True])
def test_all_records_of_a_drawn_person_are_trained_on(small: Any, private: bool) -> None:
    task = small.task()
    examples = small.fixed(task.encode(small.rows(8)))
    drawn = [[np.array(person) for person in batch] for batch in PEOPLE]
    plan = small.plan(unit="person", records_per_unit=4) if private else None
    result = train_round(task, examples, drawn, small.work().train, plan, SiteGuards([], {}), 0.01)
    assert (result.steps, result.records) == (3, 8)
    assert result.tokens == sum(examples.length(i) for i in range(8))


def people_step(small: Any, plan: Any, **train: Any) -> torch.Tensor:
    """Where one step of SGD leads that three persons take part in."""
    task = small.task()
    drawn = [[np.array(person) for person in ([0, 2, 5], [1], [3, 4, 7, 6])]]
    loop = small.work(train={"optimizer": "sgd", "momentum": 0.0, **train}).train
    start = task.resident.trained.clone()
    train_round(task, small.fixed(task.encode(small.rows(8))), drawn, loop, plan, SiteGuards([], {}), 0.1)
    return (task.resident.trained - start).detach()


def test_a_step_moves_by_at_most_one_clip_norm_a_person(small: Any) -> None:
    """Three persons, eight records: 3 C / divisor, not 8."""
    plan = small.plan(unit="person", noise_multiplier=0.0, clip_norm=0.01, records_per_unit=4)
    moved = float(people_step(small, plan, batch_size=2.0).norm())
    assert 0.0 < moved <= 0.1 * 3 * 0.01 / 2.0 * (1 + 1e-4)


def test_with_the_unit_site_the_loop_neither_clips_nor_adds_noise(small: Any) -> None:
    """Both are done to the whole update: at the outbox, and at the server."""
    site = small.plan(unit="site", sampling_rate=1.0, steps_per_round=1, noise_multiplier=50.0, clip_norm=0.001)
    assert torch.equal(people_step(small, site), people_step(small, None))


def test_with_the_unit_site_a_round_in_which_nobody_was_drawn_is_no_fault(small: Any) -> None:
    task = small.task()
    start = task.resident.theta.clone()
    play(small, [[], []], task=task, plan=small.plan(unit="site", sampling_rate=1.0, steps_per_round=1))
    assert torch.equal(task.resident.theta, start)
