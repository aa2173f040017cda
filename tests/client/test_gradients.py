"""The private gradient against another road: one record at a time with autograd, clipped in float64."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import client.gradients
from client.gradients import PlainGradient, PrivateGradient, chunks, gradient_of
from llmchain_fl.continual.guards import SiteGuards
from llmchain_fl.errors import TrainingError
from llmchain_fl.privacy.noise import SecureNoise
from llmchain_fl.work import GuardSpec

LossFn = Callable[[Sequence[int]], Tensor]
COUNT = 9


class Case:
    """A task with records, its loss with guards, and the slow loop over records."""

    def __init__(self, small: Any, kind: str = "classification", *, distill: bool = False, **settings: Any) -> None:
        self.task = small.task(kind, **settings)
        self.resident, self.small = self.task.resident, small
        self.examples = self.task.encode(small.rows(COUNT, kind))
        draw = np.random.default_rng(5)
        teacher = {
            f"teacher.{name}": draw.normal(0, 0.3, shape).astype(np.float32)
            for name, shape in self.resident.shapes.items()
        }
        specs = [GuardSpec("distill", (("temperature", 2.0), ("weight", 3.0)))] if distill else []
        self.guards = SiteGuards(specs, teacher)

    def loss(self, index: Sequence[int]) -> Tensor:
        output = self.task.forward(self.examples, index)
        return self.task.losses(output) + self.guards.example_loss(self.task, self.examples, index, output)

    def each(self, loss: LossFn | None = None) -> np.ndarray:
        """Gradient of each record alone, float64 [n, P]."""
        parameters = [self.resident.parameters[name] for name in self.resident.trained_names]
        rows = [torch.autograd.grad((loss or self.loss)([i])[0], parameters) for i in range(COUNT)]
        return np.array([torch.cat([g.reshape(-1) for g in row]).double().numpy() for row in rows])

    def private(
        self,
        clip: float,
        index: Sequence[int] = range(COUNT),
        *,
        micro: int = 4,
        z: float = 0.0,
        loss: LossFn | None = None,
    ) -> Tensor:
        """One private gradient sum with its own hooks."""
        plan = self.small.plan(noise_multiplier=z, clip_norm=clip)
        with gradient_of(self.resident, micro, plan) as gradient:
            return gradient(index, loss or self.loss)


def clipped(rows: np.ndarray, clip: float) -> np.ndarray:
    """sum_i g_i min(1, C / |g_i|), float64."""
    total = np.zeros(rows.shape[1])
    for row in rows:
        total += row * min(1.0, clip / np.linalg.norm(row))
    return total


def median_norm(rows: np.ndarray) -> float:
    """A clip norm that clips about half of the records."""
    return float(np.median(np.linalg.norm(rows, axis=1)))


def apart(found: Tensor, expected: np.ndarray) -> float:
    """Largest difference over the largest entry."""
    return float(np.abs(found.double().numpy() - expected).max() / np.abs(expected).max())


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
def test_without_noise_it_is_the_slow_loop_over_records(small: Any, name: str) -> None:
    case = Case(small, **CASES[name])
    rows = case.each()
    clip = median_norm(rows)
    norms = np.linalg.norm(rows, axis=1)
    assert 0 < (norms > clip).sum() < COUNT
    for micro in (1, 4, COUNT, 100):
        assert apart(case.private(clip, micro=micro), clipped(rows, clip)) < 1e-5


def test_a_layer_that_is_no_nn_linear_is_clipped_alike() -> None:
    """GPT-2, whose linear layers are of a type that Opacus does not know: only lora_A and lora_B matter."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from llmchain_fl.adapter.resident import Resident, ResidentSpec
    from llmchain_fl.adapter.value import AdapterSpec
    from llmchain_fl.base_model import Base, BaseSpec
    from llmchain_fl.privacy.plan import PrivacyPlan

    torch.manual_seed(1)
    shape = {
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 16,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }
    module = GPT2LMHeadModel(GPT2Config(vocab_size=20, initializer_range=0.3, **shape)).requires_grad_(False)
    spec = ResidentSpec(BaseSpec("", kind="causal-lm"), AdapterSpec(2, 4.0))
    resident = Resident(spec, Base(module, None, torch.device("cpu"), "gpt2", 16))
    resident.theta += 0.3 * torch.randn(resident.theta.shape)
    ids = torch.randint(0, 20, (COUNT, 6))

    def loss(index: Sequence[int]) -> Tensor:
        logits = resident.forward(ids[list(index)], torch.ones(len(index), 6), {}, index).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[list(index), 1:], reduction="none").sum(
            dim=1
        )

    parameters = [resident.parameters[name] for name in resident.trained_names]
    rows = np.array(
        [
            torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss([i])[0], parameters)]).double().numpy()
            for i in range(COUNT)
        ]
    )
    plan = PrivacyPlan(0.5, 0.0, median_norm(rows), 1, 4.0, 1e-5)
    with gradient_of(resident, 4, plan) as gradient:
        assert apart(gradient(range(COUNT), loss), clipped(rows, plan.clip_norm)) < 1e-5


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
    small: Any, monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Any]
) -> None:
    """Negative control: the check above is able to fail."""
    case = Case(small)
    rows = case.each()
    clip = median_norm(rows)
    monkeypatch.setattr(client.gradients, "clipped_sum", broken)
    assert apart(case.private(clip, micro=100), clipped(rows, clip)) > 1e-3


def test_the_same_check_catches_losses_that_are_averaged_over_the_batch(small: Any) -> None:
    """Negative control: with a batch mean, what a record gives depends on how many others there are."""
    case = Case(small)
    rows = case.each()
    clip = median_norm(rows)
    found = case.private(clip, micro=100, loss=lambda index: case.loss(index) / len(index))
    assert apart(found, clipped(rows, clip)) > 1e-2


@pytest.mark.parametrize("settings", [{}, {"head": "trained", "distill": True}, {"kind": "causal-lm"}])
def test_each_record_moves_the_sum_by_at_most_the_clip_norm(small: Any, settings: dict[str, Any]) -> None:
    case = Case(small, **settings)
    clip = 0.5 * median_norm(case.each())
    whole = case.private(clip)
    moves = [float((whole - case.private(clip, [j for j in range(COUNT) if j != i])).norm()) for i in range(COUNT)]
    assert max(moves) <= clip * (1 + 1e-4)
    assert max(moves) > 0.99 * clip


def test_on_a_half_precision_base_clipping_is_still_float32_and_bounded(small: Any) -> None:
    from dataclasses import replace

    from llmchain_fl.work import open_work

    work = small.work()
    work = replace(work, base=replace(work.base, dtype="bfloat16"))
    resident, task = open_work(work.resident, work.task)
    resident.theta += 0.3 * torch.randn(resident.theta.shape, generator=torch.Generator().manual_seed(1))
    examples = task.encode(small.rows(4))
    with gradient_of(resident, 1, small.plan(noise_multiplier=0.0, clip_norm=0.01)) as gradient:
        found = gradient([2], lambda index: task.losses(task.forward(examples, index)))
    assert found.dtype == torch.float32
    assert float(found.norm()) == pytest.approx(0.01, rel=1e-4)


def never(index: Sequence[int]) -> Tensor:
    raise AssertionError(f"a forward pass of {len(index)} records")


def test_an_empty_batch_is_noise_of_the_right_size_without_a_forward_pass(small: Any) -> None:
    """Sum of squares over (z C)^2 is chi-square with P degrees of freedom: mean P, variance 2 P."""
    case, draws = Case(small, trained=("lora_B",)), 30
    noise = torch.cat([case.private(0.7, [], z=1.5, loss=never) for _ in range(draws)]).double()
    degrees = noise.numel()
    assert degrees == draws * case.resident.trained_size
    assert abs(float((noise / 1.05).square().sum()) - degrees) < 5 * (2 * degrees) ** 0.5
    assert abs(float(noise.mean())) < 5 * 1.05 / degrees**0.5


def test_noise_is_added_once_a_step_and_not_once_a_micro_batch(small: Any) -> None:
    case = Case(small, trained=("lora_B",))
    clip = median_norm(case.each())
    quiet = case.private(clip)
    noise = torch.cat([case.private(clip, micro=1, z=2.0) - quiet for _ in range(10)]).double() / (2.0 * clip)
    assert abs(float(noise.square().sum()) - noise.numel()) < 5 * (2 * noise.numel()) ** 0.5


def test_noise_cannot_be_repeated_by_any_seed(small: Any) -> None:
    case, found = Case(small), []
    for _ in range(2):
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        found.append(case.private(1.0, [], z=1.0))
    assert not torch.isclose(found[0], found[1], atol=1e-6).any()


@pytest.mark.parametrize("micro", [1, 4, 100])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_record_that_is_not_finite_counts_as_zero(small: Any, micro: int, value: float) -> None:
    case = Case(small)
    rows = case.each()
    clip = median_norm(rows)

    def spoilt(index: Sequence[int]) -> Tensor:
        return case.loss(index) * torch.tensor([value if i == 3 else 1.0 for i in index])

    plan = small.plan(noise_multiplier=0.0, clip_norm=clip)
    private = PrivateGradient(case.resident, micro, plan, SecureNoise())
    found = private(range(COUNT), spoilt)
    private.close()
    assert apart(found, clipped(np.delete(rows, 3, axis=0), clip)) < 1e-5
    assert private.not_finite == 1


@pytest.mark.parametrize(
    "settings",
    [{}, {"head": "trained", "trained": ("lora_B",)}, {"kind": "causal-lm", "last_layers": 1, "cache_mb": 64}],
)
def test_the_plain_gradient_is_that_of_the_summed_loss(small: Any, settings: dict[str, Any]) -> None:
    case = Case(small, **settings)
    expected = case.each().sum(axis=0)
    for micro in (1, 4, 100):
        assert apart(PlainGradient(case.resident, micro)(range(COUNT), case.loss), expected) < 1e-5
    assert not PlainGradient(case.resident, 4)([], never).any()


def hooks(module: torch.nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._backward_hooks) for part in module.modules())


def leftovers(case: Case) -> list[str]:
    found = [
        name
        for part in case.resident.module.modules()
        for name in ("activations", "max_batch_len")
        if name in vars(part)
    ]
    return found + [
        name
        for p in case.resident.parameters.values()
        for name in ("grad_sample", "_current_grad_sample")
        if name in vars(p)
    ]


def test_the_hooks_are_gone_afterwards_and_a_second_round_works(small: Any) -> None:
    case = Case(small)
    rows = case.each()
    clip = median_norm(rows)
    for _ in range(2):
        with gradient_of(case.resident, 4, small.plan(noise_multiplier=0.0, clip_norm=clip)) as gradient:
            assert hooks(case.resident.module) > 0
            for _ in range(2):
                assert apart(gradient(range(COUNT), case.loss), clipped(rows, clip)) < 1e-5
        assert hooks(case.resident.module) == 0
        assert leftovers(case) == []
    assert all(parameter.grad is None for parameter in case.resident.parameters.values())


@pytest.mark.parametrize("when", ["after the forward pass", "within it"])
def test_a_step_that_broke_off_leaves_nothing_for_the_next_round(small: Any, when: str) -> None:
    case = Case(small)
    rows = case.each()
    clip = median_norm(rows)

    def breaks(index: Sequence[int]) -> Tensor:
        case.loss(index)
        raise MemoryError

    hook = None
    if when == "within it":
        hook = case.resident.base.module.encoder.layer[2].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises((MemoryError, ZeroDivisionError)):
        case.private(clip, range(7), micro=100, loss=breaks if hook is None else None)
    if hook is not None:
        hook.remove()
    assert leftovers(case) == []
    assert apart(case.private(clip, micro=2), clipped(rows, clip)) < 1e-5


def test_a_trained_parameter_that_takes_no_part_is_refused(small: Any) -> None:
    case = Case(small, head="trained")
    with pytest.raises(TrainingError, match="has no per-example gradient"):
        case.private(1.0, loss=lambda index: torch.stack([case.resident.parameters["head.weight"].sum()] * len(index)))


def test_chunks_hold_every_record_once() -> None:
    assert [list(part) for part in chunks(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks([], 3)) == []
