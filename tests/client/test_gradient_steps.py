"""Steps of the private gradient: noise, empty batches, hooks, and what an interrupted step leaves behind."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from client.gradients import gradient_of
from llmchain_fl.core.errors import TrainingError
from llmchain_fl.core.tasks.base import Examples


def test_a_layer_that_is_no_nn_linear_is_clipped_alike(case_of: Any) -> None:
    """GPT-2, whose linear layers are of a type that Opacus does not know: only lora_A and lora_B matter."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from llmchain_fl.core.adapter.resident import Resident, ResidentSpec
    from llmchain_fl.core.adapter.value import AdapterSpec
    from llmchain_fl.core.base_model import Base, BaseSpec
    from llmchain_fl.core.privacy.plan import PrivacyPlan

    case = case_of()
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
    ids = torch.randint(0, 20, (case.count, 6))
    fixed = case.small.fixed(Examples(list(ids.numpy()), np.zeros(case.count, dtype=np.int64)))

    def loss(index: Sequence[int]) -> Tensor:
        logits = resident.forward(ids[list(index)], torch.ones(len(index), 6), {}, index).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[list(index), 1:], reduction="none").sum(
            dim=1
        )

    parameters = [resident.parameters[name] for name in resident.trained_names]
    rows = np.array(
        [
            torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss([i])[0], parameters)]).double().numpy()
            for i in range(case.count)
        ]
    )
    plan = PrivacyPlan(0.5, 0.0, case.median_norm(rows), 1, 4.0, 1e-5, "record")
    with gradient_of(resident, fixed, 1, plan) as gradient:
        assert (
            case.apart(gradient(case.small.units(range(case.count)), loss), case.clipped(rows, plan.clip_norm)) < 1e-5
        )


def test_on_a_half_precision_base_clipping_is_still_float32_and_bounded(small: Any) -> None:
    from dataclasses import replace

    from llmchain_fl.core.work import open_work

    work = small.work()
    work = replace(work, base=replace(work.base, dtype="bfloat16"))
    resident, task = open_work(work.resident, work.task)
    resident.theta += 0.3 * torch.randn(resident.theta.shape, generator=torch.Generator().manual_seed(1))
    examples = small.fixed(task.encode(small.rows(4)), rows=1)
    with gradient_of(resident, examples, 1, small.plan(noise_multiplier=0.0, clip_norm=0.01)) as gradient:
        found = gradient(small.units([2]), lambda index: task.losses(task.forward(examples, index)))
    assert found.dtype == torch.float32
    assert float(found.norm()) == pytest.approx(0.01, rel=1e-4)


def never(index: Sequence[int]) -> Tensor:
    raise AssertionError(f"a forward pass of {len(index)} records")


def test_an_empty_batch_is_noise_of_the_right_size_without_a_forward_pass(case_of: Any) -> None:
    """Sum of squares over (z C)^2 is chi-square with P degrees of freedom: mean P, variance 2 P."""
    case, draws = case_of(trained=("lora_B",)), 30
    noise = torch.cat([case.private(0.7, [], z=1.5, loss=never) for _ in range(draws)]).double()
    degrees = noise.numel()
    assert degrees == draws * case.resident.trained_size
    assert abs(float((noise / 1.05).square().sum()) - degrees) < 5 * (2 * degrees) ** 0.5
    assert abs(float(noise.mean())) < 5 * 1.05 / degrees**0.5


def test_noise_is_added_once_a_step_and_not_once_a_pass(case_of: Any) -> None:
    case = case_of(trained=("lora_B",))
    clip = case.median_norm(case.each())
    quiet = case.private(clip)
    noise = torch.cat([case.private(clip, rows=1, z=2.0) - quiet for _ in range(10)]).double() / (2.0 * clip)
    assert abs(float(noise.square().sum()) - noise.numel()) < 5 * (2 * noise.numel()) ** 0.5


def test_noise_cannot_be_repeated_by_any_seed(case_of: Any) -> None:
    case, found = case_of(), []
    for _ in range(2):
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        found.append(case.private(1.0, [], z=1.0))
    same = torch.isclose(found[0], found[1], atol=1e-6)  # the noise lies on a grid: one in 200,000 may meet by chance
    assert int(same.sum()) < 5
    assert same.numel() > 1000


def hooks(module: torch.nn.Module) -> int:
    """Layers whose forward pass is not their own."""
    return sum("forward" in vars(part) for part in module.modules())


def leftovers(case: Any) -> list[str]:
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


def test_the_hooks_are_gone_afterwards_and_a_second_round_works(small: Any, case_of: Any) -> None:
    case = case_of()
    rows = case.each()
    clip = case.median_norm(rows)
    for _ in range(2):
        with gradient_of(case.resident, case.fixed(), 1, small.plan(noise_multiplier=0.0, clip_norm=clip)) as gradient:
            assert hooks(case.resident.module) > 0
            for _ in range(2):
                assert (
                    case.apart(gradient(case.small.units(range(case.count)), case.loss), case.clipped(rows, clip))
                    < 1e-5
                )
        assert hooks(case.resident.module) == 0
        assert leftovers(case) == []
    assert all(parameter.grad is None for parameter in case.resident.parameters.values())


@pytest.mark.parametrize("when", ["after the forward pass", "within it"])
def test_a_step_that_was_interrupted_leaves_nothing_for_the_next_round(case_of: Any, when: str) -> None:
    case = case_of()
    rows = case.each()
    clip = case.median_norm(rows)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def breaks(index: Sequence[int]) -> Tensor:
        case.loss(index)
        raise KeyboardInterrupt

    layer = case.resident.base.module.encoder.layer[2]
    hook = layer.register_forward_pre_hook(stop) if when == "within it" else None
    with pytest.raises(KeyboardInterrupt):
        case.private(clip, range(7), rows=100, loss=breaks if hook is None else None)
    if hook is not None:
        hook.remove()
    assert leftovers(case) == []
    assert hooks(case.resident.module) == 0
    assert case.apart(case.private(clip, rows=2), case.clipped(rows, clip)) < 1e-5


def unusable(case: Any, loss: Any) -> tuple[Tensor, float]:
    """(the noise-free sum over all records, the share that counted as zero)."""
    with gradient_of(case.resident, case.fixed(), 1, case.small.plan(noise_multiplier=0.0)) as gradient:
        return gradient(case.small.units(range(case.count)), loss), gradient.unusable


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, IndexError, TrainingError])
def test_records_whose_pass_raises_count_as_zero_and_leave_nothing_behind(case_of: Any, error: type) -> None:
    case = case_of()

    def breaks(index: Sequence[int]) -> Tensor:
        case.loss(index)
        raise error("x", remedy="y") if error is TrainingError else error

    found, share = unusable(case, breaks)
    assert (float(found.abs().max()), share) == (0.0, 1.0)
    assert leftovers(case) == []
    assert case.apart(case.private(1e3), case.clipped(case.each(), 1e3)) < 1e-5


def test_records_that_give_a_trained_layer_no_gradient_add_nothing(case_of: Any) -> None:
    """What the layer held from the pass before must not be taken for theirs."""
    case = case_of(head="trained")
    beside = lambda index: torch.stack([case.resident.parameters["head.weight"].sum()] * len(index))  # noqa: E731
    with gradient_of(case.resident, case.fixed(), 1, case.small.plan(noise_multiplier=0.0)) as gradient:
        assert gradient(case.small.units(range(case.count)), case.loss).any()
        assert not gradient(case.small.units(range(case.count)), beside).any()
        assert gradient.unusable == 0.0  # a gradient of zero is one
