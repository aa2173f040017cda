"""Variants of what is trained: their algebra, their gradients of each record, their folders, over the whole table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

from client.gradients import gradient_of
from client.layouts import Layouts
from client.per_sample import PerSample
from client.steady import GENTLE, shape_for
from llmchain_fl.adapter.files import Lineage, read_adapter, write_adapter
from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.factors import SiteFactors
from llmchain_fl.core.adapter.peft_model import detach
from llmchain_fl.core.adapter.variants import LORA, VARIANTS
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.tasks.passes import Shape
from llmchain_fl.core.work import open_work

WITHOUT = [name for name, variant in VARIANTS.items() if not variant.product]
KINDS = ("classification", "causal-lm")
PLACES = [(variant, kind) for variant in WITHOUT for kind in KINDS]


def moved(resident: Any, seed: int, size: float = 0.05) -> dict[str, np.ndarray]:
    """The start, each entry moved by about ``size``: an adapter as local training leaves one."""
    draw = np.random.default_rng(seed)
    return {
        name: (value + size * draw.normal(size=value.shape)).astype(np.float32)
        for name, value in resident.fresh().items()
    }


def layers(module: nn.Module) -> dict[str, Any]:
    """Everything in the layers that has a weight of its own: linear layers, and norms."""
    inside = ("base_layer", "lora_", "trained_part")
    wanted = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) or hasattr(part, "base_layer") or "norm" in type(part).__name__.lower()
    }
    return {name: part for name, part in wanted.items() if "layer" in name and not any(word in name for word in inside)}


def dense(resident: Any, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The effective weight and bias of every layer, read off its answers to the unit vectors and to zero (float64).

    For a norm, whose answer is no linear function of its input: at two fixed inputs.
    """
    resident.load(arrays)
    found = []
    for part in layers(resident.base.module).values():
        if hasattr(part, "in_features"):
            asked = torch.cat([torch.eye(part.in_features), torch.zeros(1, part.in_features)])
        else:
            asked = torch.randn(2, part.weight.shape[0], generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            found.append(part(asked).double().numpy().ravel())
    return np.concatenate(found)


def away(resident: Any, merged: Mapping[str, np.ndarray], sites: list[dict[str, np.ndarray]]) -> float:
    """``||W(merged) - mean_k W(p_k)|| / ||mean_k W(p_k) - W(start)||``."""
    mean = np.mean([dense(resident, arrays) for arrays in sites], axis=0)
    start = dense(resident, resident.fresh())
    return float(np.linalg.norm(dense(resident, merged) - mean) / np.linalg.norm(mean - start))


def opened(small: Any, variant: str, kind: str = "classification", **settings: Any) -> Any:
    work = small.work(kind, variant=variant, **settings)
    resident, task = open_work(work.resident, work.task)
    resident.reset()
    return work, resident, task


@pytest.mark.parametrize("variant", [*VARIANTS])
def test_a_variant_is_linear_if_and_only_if_the_mean_of_adapters_is_the_mean_of_models(
    small: Any, variant: str
) -> None:
    _, resident, _ = opened(small, variant, trained=("lora_A", "lora_B"))
    common = moved(resident, 9, 0.3)
    draw = np.random.default_rng(4)
    sites = [{n: (v + 0.3 * draw.normal(size=v.shape)).astype(np.float32) for n, v in common.items()} for _ in range(3)]
    merged = {name: np.mean([site[name] for site in sites], axis=0).astype(np.float32) for name in common}
    assert (away(resident, merged, sites) < 1e-5) is VARIANTS[variant].linear


@pytest.mark.parametrize("variant", WITHOUT)
def test_the_rule_that_a_variant_gets_is_as_exact_as_it_declares(small: Any, variant: str) -> None:
    work, resident, _ = opened(small, variant)
    (rule,) = [rule.of(VARIANTS[variant]) for rule in RULES.values() if rule.any_variant]
    start = resident.fresh()
    total = rule.start(start, work.adapter.scale)
    sites, weights = [moved(resident, seed) for seed in (1, 2)], (1.0, 3.0)
    for arrays, weight in zip(sites, weights, strict=True):
        total.add(SiteFactors(arrays, work.adapter.scale, weight))
    assert rule.exact
    assert rule.linear
    assert rule.trained == VARIANTS[variant].trained
    assert away(resident, total.finish(), [sites[0], *[sites[1]] * 3]) < 1e-5


@pytest.mark.parametrize(("variant", "kind"), PLACES)
@pytest.mark.part(5)
def test_a_fresh_variant_is_the_base_and_a_moved_one_is_not(small: Any, variant: str, kind: str) -> None:
    _, resident, task = opened(small, variant, kind)
    examples = task.encode(small.rows(4, kind))
    with torch.no_grad():
        fresh = task.losses(task.forward(examples, range(4)))
        resident.load(moved(resident, 3))
        other = task.losses(task.forward(examples, range(4)))
        detach(resident.base.module)
        bare = task.losses(task.forward(examples, range(4)))
    assert torch.allclose(fresh, bare, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(other, bare, rtol=1e-3)
    from llmchain_fl.core.adapter import resident as room

    room._resident.cache_clear()  # this one has lost its adapter


@pytest.mark.parametrize(("variant", "kind"), PLACES)
@pytest.mark.part(5)
def test_gradients_of_records_are_those_of_autograd_one_record_at_a_time(small: Any, variant: str, kind: str) -> None:
    _, resident, task = opened(small, variant, kind)
    resident.load(moved(resident, 3))
    examples = small.fixed(task.encode(small.rows(5, kind)), rows=5)

    def loss(index: Any) -> torch.Tensor:
        return task.losses(task.forward(examples, index))

    rows = PerSample(resident, 5)
    ours = rows.rows(5, lambda: loss(range(5)).sum().backward()).clone()
    rows.close()
    parameters = [resident.parameters[name] for name in resident.trained_names]
    for i in range(5):
        alone = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss([i]).sum(), parameters)])
        assert float((ours[i] - alone).abs().max()) <= 1e-5 * float(alone.abs().max())


@pytest.mark.parametrize("variant", WITHOUT)
@pytest.mark.part(2)
def test_a_person_with_64_records_moves_the_sum_by_at_most_the_clip_norm(small: Any, variant: str) -> None:
    _, resident, task = opened(small, variant)
    resident.load(moved(resident, 3))
    examples, clip = small.fixed(task.encode(small.rows(70)), rows=6), 1e-3
    others, whole = [np.arange(64, 67), np.arange(67, 70)], np.arange(64)
    plan = small.plan(noise_multiplier=0.0, clip_norm=clip, unit="person", records_per_unit=64)

    def loss(index: Any) -> torch.Tensor:
        return task.losses(task.forward(examples, index))

    with gradient_of(resident, examples, 1, plan) as gradient:
        apart = (gradient([*others, whole], loss).double() - gradient(others, loss).double()).norm()
    assert clip * (1 - 1e-4) < float(apart) <= clip * (1 + 1e-6)


@pytest.mark.parametrize("variant", WITHOUT)
@pytest.mark.part(2)
def test_private_passes_of_several_records_are_found_to_be_right(small: Any, variant: str) -> None:
    """Layers tell records apart, and rows have the same bits wherever they stand: full passes are taken."""
    _, resident, task = opened(small, variant)
    examples = small.fixed(task.encode(small.rows(4)), rows=4)
    made = resident.state_of(moved(resident, 2, GENTLE))
    layouts = Layouts(resident, made, lambda index: task.losses(task.forward(examples, index)))
    layouts.check()
    assert layouts.find(4) == set()
    assert shape_for(resident, task, 16, 4).rows == 4


@pytest.mark.parametrize(("variant", "kind"), PLACES)
def test_plain_peft_opens_the_folder_and_gives_the_same_numbers(
    small: Any, variant: str, kind: str, tmp_path: Path
) -> None:
    work, resident, task = opened(small, variant, kind)
    arrays = moved(resident, 3)
    resident.load(arrays)
    write_adapter(tmp_path, resident, arrays, work, Lineage("run", 1, "stage", ""))
    examples = task.encode(small.rows(3, kind))
    ids = torch.from_numpy(np.stack([np.resize(row, 6) for row in examples.ids]).astype(np.int64))
    with torch.no_grad():
        ours = resident.base.module(input_ids=ids)[0]
        loader = AutoModel if kind == "classification" else AutoModelForCausalLM
        bare = loader.from_pretrained(work.base.path)
        plain, theirs = bare(input_ids=ids)[0], None
        theirs = peft.PeftModel.from_pretrained(bare, str(tmp_path)).eval()(input_ids=ids)[0]
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain, theirs, rtol=1e-2)
    read_work, read = read_adapter(tmp_path)
    assert read_work.adapter.variant == variant
    assert {name: value.tobytes() for name, value in read.items()} == {n: v.tobytes() for n, v in arrays.items()}


@pytest.mark.parametrize("variant", WITHOUT)
def test_a_base_of_half_precision_is_trained_in_float32(small: Any, variant: str) -> None:
    import dataclasses

    work = small.work(variant=variant)
    work = dataclasses.replace(work, base=dataclasses.replace(work.base, dtype="bfloat16"))
    resident, task = open_work(work.resident, work.task)
    resident.load(moved(resident, 1))
    examples = task.encode(small.rows(3))
    parameters = [resident.parameters[name] for name in resident.trained_names]
    found = torch.autograd.grad(task.losses(task.forward(examples, range(3))).sum(), parameters)
    assert {value.dtype for value in [*found, resident.theta]} == {torch.float32}
    assert resident.base.module(input_ids=torch.ones(1, 3, dtype=torch.long))[0].dtype == torch.bfloat16
    assert all(bool(value.any()) for value in found)


@pytest.mark.parametrize("variant", WITHOUT)
def test_only_the_last_layers_and_the_named_targets_are_adapted(small: Any, variant: str) -> None:
    target = "LayerNorm" if variant == "layer-norm" else "query"
    _, resident, _ = opened(small, variant, last_layers=1, targets=(target,))
    layers_named = {name.rpartition(".")[0] for name in resident.shapes}
    assert all(name.startswith("encoder.layer.2.") and name.endswith(target) for name in layers_named)


def test_a_row_without_a_direction_has_no_magnitude(small: Any) -> None:
    _, resident, _ = opened(small, LORA)
    detach(resident.base.module)
    with torch.no_grad():
        layer = resident.base.module.encoder.layer[0].attention.self.query
        kept = layer.weight[3].clone()
        layer.weight[3] = 0
    from llmchain_fl.core.adapter import peft_model
    from llmchain_fl.core.adapter import resident as room

    try:
        with pytest.raises(ModelError, match=r"query: a row of its weight is 0"):
            peft_model.attach(resident.base.module, small.work(variant="dora-magnitude").adapter)
    finally:
        with torch.no_grad():
            layer.weight[3] = kept
        room._resident.cache_clear()


def test_one_gradient_is_the_same_in_passes_of_any_number_of_rows(small: Any) -> None:
    _, resident, task = opened(small, "layer-norm")
    examples = task.encode(small.rows(6))
    plan = small.plan(noise_multiplier=0.0, clip_norm=0.1)
    sums = []
    for rows in (1, 3):
        examples.fix(Shape(rows, 16))
        with gradient_of(resident, examples, 1, plan) as gradient:
            sums.append(
                gradient(small.units(range(6)), lambda index: task.losses(task.forward(examples, index))).double()
            )
    assert torch.allclose(sums[0], sums[1], rtol=1e-4, atol=1e-7)
