from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.core.adapter.dense import frozen_weight
from llmchain_fl.core.adapter.resident import Resident, load_resident
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import ModelError


def fold_of(resident: Resident, rank: int = 3, seed: int = 1) -> Arrays:
    """A fold for every adapted layer but the first."""
    draw = np.random.default_rng(seed)
    found: Arrays = {}
    for name, shape in list(resident.shapes.items()):
        if name.endswith("lora_A"):
            d_out = resident.shapes[name.replace("lora_A", "lora_B")][0]
            path = name.removesuffix(".lora_A")
            found[f"{path}.fold_A"] = draw.normal(size=(rank, shape[1])).astype(np.float32)
            found[f"{path}.fold_B"] = draw.normal(size=(d_out, rank)).astype(np.float32) * 0.1
    first = next(iter(found)).rpartition(".")[0]
    return {name: value for name, value in found.items() if not name.startswith(f"{first}.")}


def logits(task: Any, examples: Any) -> torch.Tensor:
    with torch.no_grad():
        return task.forward(examples, range(len(examples))).logits.clone()


@pytest.mark.parametrize("last_layers", [0, 1])
def test_a_fold_computes_as_if_it_were_added_to_the_base(small: Any, last_layers: int) -> None:
    task = small.task(last_layers=last_layers, cache_mb=64 * last_layers)
    examples, resident = task.encode(small.rows(6)), task.resident
    bare = logits(task, examples)
    fold = fold_of(resident)
    resident.load(fold)
    folded = logits(task, examples)
    resident.fold.pairs = {}
    assert (folded - bare).abs().max() > 0.1
    added = {}
    for path in {name.rpartition(".")[0] for name in fold}:
        weight = resident._layers[path].get_base_layer().weight
        added[path] = weight.detach().clone()
        weight.data += torch.from_numpy(fold[f"{path}.fold_B"] @ fold[f"{path}.fold_A"])
    try:
        assert torch.allclose(logits(task, examples), folded, atol=2e-4)
    finally:
        for path, weight in added.items():
            resident._layers[path].get_base_layer().weight.data.copy_(weight)


def test_reset_takes_the_fold_away_and_load_without_one_keeps_it(small: Any) -> None:
    task = small.task()
    examples, resident = task.encode(small.rows(4)), task.resident
    resident.reset()
    start = logits(task, examples)
    resident.load(fold_of(resident))
    folded = logits(task, examples)
    resident.load(resident.fresh())
    assert torch.equal(logits(task, examples), folded)
    resident.reset()
    assert torch.equal(logits(task, examples), start)


def test_the_fold_is_part_of_the_state_and_a_bare_vector_has_none(small: Any) -> None:
    task = small.task()
    examples, resident = task.encode(small.rows(4)), task.resident
    plain = logits(task, examples)
    arrays = {**resident.arrays(), **fold_of(resident)}
    other = resident.state_of(arrays)
    assert torch.equal(logits(task, examples), plain)
    with resident.swapped(other):
        folded = logits(task, examples)
        with resident.swapped(resident.theta.clone()):
            assert torch.equal(logits(task, examples), plain)
        assert torch.equal(logits(task, examples), folded)
    assert (folded - plain).abs().max() > 0.1
    assert torch.equal(logits(task, examples), plain)


def test_a_record_has_the_same_private_gradient_with_a_fold_as_with_autograd(small: Any) -> None:
    from client.gradients import gradient_of

    task = small.task()
    task.resident.load(fold_of(task.resident))
    examples = task.encode(small.rows(3))

    def loss(index: Any) -> torch.Tensor:
        return task.losses(task.forward(examples, index))

    parameters = [task.resident.parameters[name] for name in task.resident.trained_names]
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss([1]).sum(), parameters)])
    with gradient_of(
        task.resident, small.fixed(examples), 4, small.plan(noise_multiplier=0.0, clip_norm=1e4)
    ) as gradient:
        assert torch.allclose(gradient(small.units([1]), loss), expected, atol=1e-4)


@pytest.mark.parametrize("fault", ["half", "module", "d_in", "d_out", "rank"])
def test_a_fold_that_does_not_fit_is_refused_and_changes_nothing(small: Any, fault: str) -> None:
    resident = small.task().resident
    fold = fold_of(resident)
    path = next(iter(fold)).rpartition(".")[0]
    a, b = fold[f"{path}.fold_A"], fold[f"{path}.fold_B"]
    broken: dict[str, Arrays] = {
        "half": {f"{path}.fold_A": a},
        "module": {"nowhere.fold_A": a, "nowhere.fold_B": b},
        "d_in": {f"{path}.fold_A": a[:, :-1], f"{path}.fold_B": b},
        "d_out": {f"{path}.fold_A": a, f"{path}.fold_B": b[:-1]},
        "rank": {f"{path}.fold_A": a[:-1], f"{path}.fold_B": b},
    }
    with pytest.raises(ModelError, match="does not fit the model"):
        resident.load(broken[fault])
    assert resident.fold.pairs == {}


def test_the_fold_is_float32_on_a_half_precision_base(small: Any) -> None:
    work = small.work()
    spec = type(work.resident)(small.base(dtype="bfloat16"), work.adapter)
    resident = load_resident(spec)
    resident.reset()
    ids, mask = torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.int64)
    before = resident.forward(ids, mask, {}, [0])[0]
    resident.load(fold_of(resident))
    after = resident.forward(ids, mask, {}, [0])[0]
    assert after.dtype == before.dtype == torch.bfloat16
    assert not torch.equal(after, before)
    assert all(part.dtype == torch.float32 for pair in resident.fold.pairs.values() for part in pair)


def test_a_core_stands_between_the_factors_and_starts_at_nothing(small: Any) -> None:
    task = small.task(trained=("lora_R",), moved=0.0)
    resident = task.resident
    assert {name.rpartition(".")[2] for name in resident.shapes} == {"lora_A", "lora_B", "lora_R"}
    draw = torch.Generator().manual_seed(2)
    for name, parameter in resident.parameters.items():
        if not name.endswith("lora_R"):
            parameter.data.copy_(torch.randn(parameter.shape, generator=draw))
    path, layer = next(iter(resident._layers.items()))
    unit = torch.eye(layer.in_features)
    base = layer.get_base_layer()(unit)
    assert torch.equal(layer(unit), base)
    core = torch.randn(3, 3, generator=draw)
    resident.parameters[f"{path}.lora_R"].data.copy_(core)
    a, b = (resident.parameters[f"{path}.{ending}"].detach() for ending in ("lora_A", "lora_B"))
    assert torch.allclose((layer(unit) - base).T, 2.0 * b @ core @ a, atol=1e-4)


def test_the_frozen_weight_is_d_out_by_d_in(small: Any) -> None:
    resident = small.task().resident
    for name, shape in resident.shapes.items():
        if name.endswith("lora_A"):
            path = name.removesuffix(".lora_A")
            d_out = resident.shapes[f"{path}.lora_B"][0]
            weight = frozen_weight(resident, path)
            assert weight.shape == (d_out, shape[1])
            assert np.array_equal(weight, resident._layers[path].get_base_layer().weight.detach().numpy())
