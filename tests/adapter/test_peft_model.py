from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, GPT2Config, GPT2Model

from llmchain_fl.adapter.peft_files import read_peft, write_peft
from llmchain_fl.core.adapter.peft_model import attach, config_for, detach, target_modules
from llmchain_fl.core.adapter.resident import Resident, ResidentSpec, _resident, load_resident
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.base_model import load_base
from llmchain_fl.core.errors import ModelError

KINDS = ["encoder", "causal-lm"]
BERT = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
]


def bare(small: Any, kind: str = "encoder") -> nn.Module:
    """The base as it is loaded, with no adapter on it."""
    module = load_base(small.base(kind)).module
    _resident.cache_clear()
    detach(module)
    return module


def resident_of(small: Any, kind: str, **adapter: Any) -> Resident:
    """A resident whose adapter has moved away from its start."""
    spec = AdapterSpec(**{"rank": 3, "alpha": 6.0, **adapter})
    resident = load_resident(ResidentSpec(small.base(kind), spec, cache_mb=0))
    resident.theta.copy_(0.3 * torch.randn(resident.theta.shape, generator=torch.Generator().manual_seed(1)))
    return resident


@pytest.mark.parametrize("kind", KINDS)
def test_attaching_and_detaching_leaves_the_base_bit_identical(small: Any, kind: str) -> None:
    module = bare(small, kind)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    parts, own = [(name, type(part)) for name, part in module.named_modules()], set(vars(module))
    found = attach(module, AdapterSpec(2, 4.0))
    for parameter in found.values():
        parameter.data.fill_(3.0)
    detach(module)
    after = module.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [(name, type(part)) for name, part in module.named_modules()] == parts
    assert set(vars(module)) == own
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_detaching_a_bare_base_changes_nothing(small: Any) -> None:
    module = bare(small)
    before = set(vars(module))
    detach(module)
    assert set(vars(module)) == before


def test_an_adapter_on_an_adapter_is_refused(small: Any) -> None:
    module = bare(small)
    attach(module, AdapterSpec(2, 4.0))
    with pytest.raises(ModelError, match="already carries"):
        attach(module, AdapterSpec(2, 4.0))
    detach(module)


def test_names_and_shapes_are_those_of_the_layers(small: Any) -> None:
    module = bare(small)
    shapes = {name: tuple(parameter.shape) for name, parameter in attach(module, AdapterSpec(3, 6.0)).items()}
    detach(module)
    expected = {}
    for layer in range(3):
        for name in BERT:
            linear = module.get_submodule(f"encoder.layer.{layer}.{name}")
            expected[f"encoder.layer.{layer}.{name}.lora_A"] = (3, linear.in_features)
            expected[f"encoder.layer.{layer}.{name}.lora_B"] = (linear.out_features, 3)
    assert shapes == expected


def test_neither_the_pooler_nor_the_output_layer_is_adapted(small: Any) -> None:
    names = target_modules(bare(small), AdapterSpec(2, 4.0)) + target_modules(
        bare(small, "causal-lm"), AdapterSpec(2, 4.0)
    )
    assert not [name for name in names if "pooler" in name or "lm_head" in name]


@pytest.mark.parametrize(("last", "layers"), [(0, {"0", "1", "2"}), (1, {"2"}), (2, {"1", "2"}), (3, {"0", "1", "2"})])
def test_last_layers_adapts_only_those(small: Any, last: int, layers: set[str]) -> None:
    names = target_modules(bare(small), AdapterSpec(2, 4.0, ("query", "value"), last))
    assert {name.split(".")[2] for name in names} == layers
    assert {name.rsplit(".", 1)[1] for name in names} == {"query", "value"}


def test_more_layers_than_there_are_is_refused(small: Any) -> None:
    with pytest.raises(ModelError, match="last_layers = 4: the model has 3 layers"):
        target_modules(bare(small), AdapterSpec(2, 4.0, last_layers=4))


def test_an_unknown_target_is_refused_with_the_known_ones(small: Any) -> None:
    with pytest.raises(ModelError) as caught:
        target_modules(bare(small), AdapterSpec(2, 4.0, ("qwery", "value", "w2")))
    assert "qwery, w2" in str(caught.value)
    assert "value" not in caught.value.what
    assert all(name in caught.value.remedy for name in ("query", "key", "value", "dense", "all-linear"))


def test_no_target_at_all_is_refused(small: Any) -> None:
    with pytest.raises(ModelError, match=r"adapter\.targets"):
        target_modules(bare(small), AdapterSpec(2, 4.0, ()))


def test_layers_that_are_no_nn_linear_are_adapted_as_well() -> None:
    """GPT-2's Conv1D, whose weight is transposed."""
    module = GPT2Model(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=20, n_positions=16)).requires_grad_(False)
    shapes = {
        name: tuple(parameter.shape) for name, parameter in attach(module, AdapterSpec(2, 4.0, ("c_attn",))).items()
    }
    detach(module)
    assert shapes == {
        f"h.{i}.attn.c_attn.{end}": shape for i in range(2) for end, shape in (("lora_A", (2, 16)), ("lora_B", (48, 2)))
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapter", [{}, {"last_layers": 1}, {"targets": ("query", "q_proj"), "rank": 2}])
def test_real_peft_gives_the_same_hidden_states_as_the_resident(
    small: Any, tmp_path: Path, kind: str, adapter: dict[str, Any]
) -> None:
    """peft's own loader on a base loaded by transformers: nothing of ours but the files."""
    if "targets" in adapter:
        adapter = {**adapter, "targets": ("query",) if kind == "encoder" else ("q_proj",)}
    resident = resident_of(small, kind, **adapter)
    write_peft(tmp_path, resident.arrays(), resident.peft_config)
    ids, mask = (
        torch.randint(4, 20, (3, 7), generator=torch.Generator().manual_seed(2)),
        torch.ones(3, 7, dtype=torch.int64),
    )
    mask[1, 4:] = 0
    with torch.no_grad():
        ours = resident.forward(ids, mask, {}, range(3))[0]
    loader, path = (AutoModel, small.bert) if kind == "encoder" else (AutoModelForCausalLM, small.llama)
    plain = loader.from_pretrained(path)
    with torch.no_grad():
        untouched = plain(input_ids=ids, attention_mask=mask)[0]
        theirs = peft.PeftModel.from_pretrained(plain, str(tmp_path))(input_ids=ids, attention_mask=mask)[0]
    real = mask.bool()
    assert torch.allclose(ours[real], theirs[real], atol=1e-5)
    assert not torch.allclose(ours[real], untouched[real], atol=1e-2)


def test_the_written_configuration_names_the_public_base_and_is_always_the_same(small: Any, tmp_path: Path) -> None:
    module = bare(small)
    texts = set()
    for number in range(2):
        config = config_for(module, AdapterSpec(3, 6.0, last_layers=1), "org/base")
        write_peft(tmp_path / str(number), {"x.lora_A": np.zeros((3, 4), np.float32)}, config)
        texts.add((tmp_path / str(number) / "adapter_config.json").read_text())
    assert len(texts) == 1
    told = json.loads(texts.pop())
    assert (told["base_model_name_or_path"], told["r"], told["lora_alpha"], told["peft_type"]) == (
        "org/base",
        3,
        6.0,
        "LORA",
    )
    assert told["target_modules"] == sorted(told["target_modules"])


def test_arrays_survive_the_files(small: Any, tmp_path: Path) -> None:
    resident = resident_of(small, "encoder")
    write_peft(tmp_path, resident.arrays(), resident.peft_config)
    back = read_peft(tmp_path)
    assert set(back) == set(resident.shapes)
    assert all(np.array_equal(back[name], value) for name, value in resident.arrays().items())


def test_an_adapter_that_peft_itself_saved_can_be_read(small: Any, tmp_path: Path) -> None:
    plain = AutoModel.from_pretrained(small.bert)
    wrapped = peft.get_peft_model(plain, peft.LoraConfig(r=2, target_modules=["query"]))
    wrapped.save_pretrained(str(tmp_path))
    assert set(read_peft(tmp_path)) == {
        f"encoder.layer.{i}.attention.self.query.{end}" for i in range(3) for end in ("lora_A", "lora_B")
    }


def test_a_pickled_adapter_is_refused_and_never_opened(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").symlink_to(tmp_path / "trap")
    opened = tmp_path / "opened"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(opened), "w"))

    torch.save(Trap(), tmp_path / "trap")
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        read_peft(tmp_path)
    assert not opened.exists()


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 64])
def test_a_damaged_adapter_file_is_a_model_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors"):
        read_peft(tmp_path)


def test_a_foreign_tensor_is_refused(small: Any, tmp_path: Path) -> None:
    resident = resident_of(small, "encoder")
    write_peft(tmp_path, {**resident.arrays(), "encoder.layer.0.norm": np.zeros(3, np.float32)}, resident.peft_config)
    with pytest.raises(ModelError, match="no LoRA factor"):
        read_peft(tmp_path)
