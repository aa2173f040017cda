from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.peft_model import detach
from llmchain_fl.core.adapter.resident import Resident, ResidentSpec, _resident, load_resident
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.base_model import load_base
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.work import open_work

IDS = torch.randint(4, 20, (3, 7), generator=torch.Generator().manual_seed(2))
MASK = torch.ones_like(IDS)


def spec_of(small: Any, kind: str = "encoder", head_size: int = 0, **adapter: Any) -> ResidentSpec:
    return ResidentSpec(small.base(kind), AdapterSpec(**{"rank": 3, "alpha": 6.0, **adapter}), head_size, cache_mb=0)


def hidden(resident: Resident) -> torch.Tensor:
    with torch.no_grad():
        return resident.forward(IDS, MASK, {}, range(3))[0]


def test_the_start_changes_nothing_of_the_base(small: Any) -> None:
    module = load_base(small.base()).module
    _resident.cache_clear()
    detach(module)
    with torch.no_grad():
        before = module(input_ids=IDS, attention_mask=MASK)[0]
    assert torch.equal(hidden(load_resident(spec_of(small))), before)


def test_the_same_spec_gives_the_same_resident(small: Any) -> None:
    assert load_resident(spec_of(small)) is load_resident(spec_of(small))


@pytest.mark.parametrize("trained", [("lora_B",), ("lora_A",), ("lora_A", "lora_B")])
def test_only_the_chosen_factors_and_the_head_are_trained(small: Any, trained: tuple[str, ...]) -> None:
    resident = load_resident(spec_of(small, head_size=4, trained=trained))
    wanted = {name for name in resident.shapes if name.endswith(trained) or name.startswith("head.")}
    assert set(resident.trained_names) == wanted
    assert {name for name, parameter in resident.parameters.items() if parameter.requires_grad} == wanted
    assert not any(p.requires_grad for name, p in resident.base.module.named_parameters() if "lora_" not in name)
    assert resident.trained_size == sum(np.prod(resident.shapes[name]) for name in wanted) < resident.theta.numel() + 1


def test_all_parameters_are_views_of_one_vector_the_trained_ones_first(small: Any) -> None:
    resident = load_resident(spec_of(small, head_size=4, trained=("lora_B",)))
    resident.theta.copy_(torch.arange(resident.theta.numel(), dtype=torch.float32))
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in resident.parameters.values()])
    assert torch.equal(flat, resident.theta)
    assert list(resident.parameters)[: len(resident.trained_names)] == list(resident.trained_names)
    resident.trained.fill_(-1.0)
    assert all((resident.parameters[name] == -1).all() for name in resident.trained_names)
    assert resident.theta[resident.trained_size] == resident.trained_size


def test_the_order_of_the_vector_does_not_depend_on_which_factors_are_trained_within_each_part(small: Any) -> None:
    names = load_resident(spec_of(small, trained=("lora_B",))).trained_names
    assert list(names) == sorted(names)


def test_arrays_survive_load(small: Any) -> None:
    resident = load_resident(spec_of(small, head_size=4))
    draw = np.random.default_rng(1)
    arrays = {name: draw.normal(size=shape).astype(np.float32) for name, shape in resident.shapes.items()}
    resident.load(arrays)
    assert digest(resident.arrays()) == digest(arrays)
    resident.load({name: torch.from_numpy(value) for name, value in arrays.items()})
    assert digest(resident.arrays()) == digest(arrays)
    assert set(resident.arrays(["head.bias"])) == {"head.bias"}


def test_the_arrays_are_copies(small: Any) -> None:
    resident = load_resident(spec_of(small))
    resident.reset()
    for value in resident.arrays().values():
        value.fill(9.0)
    assert digest(resident.arrays()) == digest(resident.fresh())


def test_names_that_are_not_given_keep_their_value_and_reset_goes_back_to_the_start(small: Any) -> None:
    resident = load_resident(spec_of(small))
    resident.reset()
    name = resident.trained_names[0]
    resident.load({name: np.full(resident.shapes[name], 2.0)})
    assert digest(resident.arrays()) == digest(
        {**resident.fresh(), name: np.full(resident.shapes[name], 2.0, np.float32)}
    )
    resident.reset()
    assert digest(resident.arrays()) == digest(resident.fresh())


def test_the_start_that_is_kept_follows_what_is_trained_and_the_start_of_the_head(small: Any) -> None:
    resident = load_resident(spec_of(small, head_size=2))
    head = {"head.weight": np.full(resident.shapes["head.weight"], 3.0, np.float32)}
    try:
        for trained in (("lora_A", "lora_B"), ("lora_B",), ("lora_A", "lora_B")):
            resident.focus(trained)
            for resident.head_start in (head, {}):
                for _ in range(2):
                    resident.theta.fill_(7.0)
                    resident.reset()
                    assert digest(resident.arrays()) == digest(resident.fresh())
    finally:
        resident.head_start = {}


def test_a_load_that_does_not_fit_changes_nothing(small: Any) -> None:
    resident = load_resident(spec_of(small))
    resident.reset()
    good, bad = resident.trained_names[:2]
    for wrong in ({bad: np.zeros((1, 1))}, {"nobody.lora_A": np.zeros((3, 4))}):
        with pytest.raises(ModelError, match="another base model, rank or label list"):
            resident.load({good: np.ones(resident.shapes[good]), **wrong})
    assert digest(resident.arrays()) == digest(resident.fresh())


def test_a_swap_is_undone_even_after_an_error(small: Any) -> None:
    resident = load_resident(spec_of(small))
    resident.reset()

    def breaks() -> None:
        with resident.swapped(torch.ones_like(resident.theta)):
            assert (resident.theta == 1).all()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        breaks()
    assert digest(resident.arrays()) == digest(resident.fresh())


def test_two_adapters_on_one_base_take_turns(small: Any) -> None:
    """Another spec replaces the adapter; the base stays in memory and coming back gives the same output again."""
    first, second = spec_of(small), spec_of(small, rank=2, alpha=8.0, targets=("query",), last_layers=1)
    outputs = []
    for spec in (first, second, first, second):
        resident = load_resident(spec)
        draw = torch.Generator().manual_seed(4)
        resident.theta.copy_(0.3 * torch.randn(resident.theta.shape, generator=draw))
        outputs.append(hidden(resident))
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])
    assert not torch.allclose(outputs[0], outputs[1])
    assert load_resident(first).base is load_resident(second).base


def test_a_spec_that_fails_does_not_leave_the_one_before_without_its_adapter(small: Any) -> None:
    good = spec_of(small)
    load_resident(good)
    with pytest.raises(ModelError, match="qwery"):
        load_resident(spec_of(small, targets=("qwery",)))
    again = load_resident(good)
    before = hidden(again)
    again.theta.fill_(0.5)
    assert not torch.allclose(hidden(again), before)


def test_work_that_comes_back_finds_its_adapter_attached(small: Any) -> None:
    """A task is kept from round to round, but never one whose adapter was taken off the base meanwhile."""
    work = small.work()
    resident, task = open_work(work.resident, work.task)
    assert open_work(work.resident, work.task) == (resident, task)
    load_resident(spec_of(small, rank=2))
    again, other = open_work(work.resident, work.task)
    assert other.resident is again
    again.theta.fill_(0.5)
    moved = hidden(again)
    again.reset()
    assert not torch.allclose(moved, hidden(again))


def test_the_adapter_stays_float32_on_a_half_precision_base(small: Any) -> None:
    spec = replace(spec_of(small), base=small.base(dtype="bfloat16"))
    resident = load_resident(spec)
    assert {parameter.dtype for parameter in resident.parameters.values()} == {torch.float32}
    resident.theta.fill_(0.1)
    assert hidden(resident).dtype == torch.bfloat16


@pytest.mark.slow
def test_the_real_minilm_carries_an_adapter() -> None:
    from llmchain_fl.core.base_model import BaseSpec

    resident = load_resident(
        ResidentSpec(BaseSpec("minilm", device="cpu"), AdapterSpec(8, 16.0, last_layers=2), cache_mb=64)
    )
    assert len(resident.shapes) == 2 * 2 * 6
    before = hidden(resident)
    resident.theta += 0.05
    assert not torch.allclose(before, hidden(resident), atol=1e-3)


def test_a_focus_on_other_factors_keeps_every_value_and_trains_only_those(small: Any) -> None:
    resident = small.task().resident
    before, head = resident.arrays(), resident.trained_names
    resident.focus(("lora_A",))
    assert resident.trained_names == tuple(name for name in head if name.endswith("lora_A"))
    assert all(p.requires_grad == name.endswith("lora_A") for name, p in resident.parameters.items())
    after = resident.arrays()
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    resident.trained.zero_()
    assert all(value.any() != name.endswith("lora_A") for name, value in resident.arrays().items())
    resident.focus(("lora_A", "lora_B"))
    assert resident.trained_names == head
    resident.reset()
    assert all(np.array_equal(value, resident.fresh()[name]) for name, value in resident.arrays().items())


def test_a_focus_on_what_the_spec_does_not_train_is_refused(small: Any) -> None:
    with pytest.raises(ModelError, match="cannot be trained here"):
        small.task(trained=("lora_B",)).resident.focus(("lora_A",))
