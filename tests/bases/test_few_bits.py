"""Bases of 8 and 4 bits a weight: refused without the extra; with it a record's gradient is its own, bit for bit."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.gradients import gradient_of
from client.layouts import Layouts
from llmchain_fl.core.adapter.dense import frozen_weight
from llmchain_fl.core.base_model import FEW_BITS, load_base
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.work import open_work

installed = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="the extra few-bits (bitsandbytes) is not installed"
)
PLACES = [(dtype, variant) for dtype in FEW_BITS for variant in ("lora", "layer-norm", "dora-magnitude")]


def opened(small: Any, dtype: str, variant: str = "lora") -> Any:
    work = small.work(variant=variant, trained=("lora_B",))
    work = dataclasses.replace(work, base=dataclasses.replace(work.base, dtype=dtype))
    resident, task = open_work(work.resident, work.task)
    draw = np.random.default_rng(3)
    arrays = {
        name: (value + 0.05 * draw.normal(size=value.shape)).astype(np.float32)
        for name, value in resident.fresh().items()
    }
    resident.reset()
    resident.load(arrays)
    return resident, task


@pytest.mark.parametrize("dtype", FEW_BITS)
def test_without_the_extra_it_says_what_brings_it(small: Any, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else real(name, *rest)
    )
    with pytest.raises(ModelError, match=r"bitsandbytes is not installed(.|\n)*llmchain-fl\[few-bits\]"):
        load_base(small.base(dtype=dtype))


@installed
@pytest.mark.parametrize(("dtype", "variant"), PLACES)
def test_what_a_person_adds_is_its_own_and_at_most_the_clip_norm(small: Any, dtype: str, variant: str) -> None:
    resident, task = opened(small, dtype, variant)
    assert resident.theta.dtype == torch.float32
    examples, clip = small.fixed(task.encode(small.rows(20)), rows=4), 1e-3
    person, others = np.arange(14), [np.arange(14, 17), np.arange(17, 20)]
    plan = small.plan(noise_multiplier=0.0, clip_norm=clip, unit="person", records_per_unit=14)

    def loss(index: Any) -> torch.Tensor:
        return task.losses(task.forward(examples, index))

    with gradient_of(resident, examples, 1, plan) as gradient:
        whole, without, alone = (gradient(units, loss).double() for units in ([*others, person], others, [person]))
    assert clip * (1 - 1e-4) < float((whole - without).norm()) <= clip * (1 + 1e-6)
    assert float((whole - without - alone).norm()) <= 1e-6 * clip


@installed
@pytest.mark.parametrize(("dtype", "variant"), PLACES)
def test_gradients_of_records_are_those_of_autograd(small: Any, dtype: str, variant: str) -> None:
    resident, task = opened(small, dtype, variant)
    examples = small.fixed(task.encode(small.rows(4)), rows=4)
    layouts = Layouts(resident, resident.state(), lambda index: task.losses(task.forward(examples, index)))
    layouts.check()
    assert layouts.find(4) == set()


@installed
@pytest.mark.parametrize("dtype", FEW_BITS)
def test_a_weight_is_read_as_the_number_that_it_stands_for(small: Any, dtype: str) -> None:
    resident, _ = opened(small, dtype)
    path = next(iter(resident._layers))
    few = frozen_weight(resident, path)
    resident.base.module(input_ids=torch.ones(1, 3, dtype=torch.long))  # reading it has left the layer as it was
    plain, _ = open_work(small.work().resident, small.work().task)
    full = frozen_weight(plain, path)
    assert few.shape == full.shape
    assert 0 < np.abs(few - full).max() < 0.2 * np.abs(full).max()


@installed
def test_a_folder_is_plain_peft_over_the_base_of_few_bits(small: Any, tmp_path: Path) -> None:
    import peft
    from transformers import AutoModel

    from llmchain_fl.adapter.files import Lineage, write_adapter
    from llmchain_fl.core.base_model import weight_options

    work = small.work()
    work = dataclasses.replace(work, base=dataclasses.replace(work.base, dtype="nf4"))
    resident, _ = opened(small, "nf4")
    write_adapter(tmp_path, resident, resident.arrays(), work, Lineage("run", 1, "stage", ""))
    ids = torch.arange(4, 10)[None]
    bare = AutoModel.from_pretrained(work.base.path, **weight_options(work.base))
    model = peft.PeftModel.from_pretrained(bare, str(tmp_path)).eval()
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids)[0], resident.base.module(input_ids=ids)[0], rtol=1e-3, atol=1e-4)
