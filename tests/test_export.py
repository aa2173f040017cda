"""An exported model answers as base and adapter do; an exported adapter is what other readers ask for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModel, AutoModelForCausalLM, LlamaForCausalLM

from llmchain_fl.adapter.files import Lineage, write_adapter
from llmchain_fl.adapter.slots_file import Slots
from llmchain_fl.core.errors import ConfigError, ModelError
from llmchain_fl.export import export


def adapter(small: Any, folder: Path, kind: str, slots: Slots | None = None, **settings: Any) -> Path:
    """A moved adapter of a tiny model, as a run writes it."""
    task = small.task(kind, **settings)
    arrays = task.resident.arrays()
    write_adapter(folder, task.resident, arrays, small.work(kind, **settings), Lineage("r", 1, "s", ""), slots)
    return folder


def outputs(model: Any) -> Any:
    ids = torch.tensor([[3, 5, 7, 11, 2, 4], [8, 8, 9, 1, 0, 6]])
    with torch.no_grad():
        found = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    return (found.logits if "logits" in found else found.last_hidden_state).numpy()


@pytest.mark.parametrize(("kind", "settings"), [("classification", {"head": "trained"}), ("causal-lm", {})])
def test_a_merged_model_gives_the_outputs_of_base_and_adapter(
    small: Any, tmp_path: Path, kind: str, settings: Any
) -> None:
    reader, base = (AutoModel, small.bert) if kind == "classification" else (AutoModelForCausalLM, small.llama)
    folder = adapter(small, tmp_path / "adapter", kind, **settings)
    done = export(folder, tmp_path / "merged", "merged")
    wanted = outputs(PeftModel.from_pretrained(reader.from_pretrained(base), str(folder)))
    found = outputs(reader.from_pretrained(tmp_path / "merged"))
    bare = outputs(reader.from_pretrained(base))
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert np.abs(found - bare).max() > 1e-2, "the adapter changes something"
    assert done.difference <= 1e-5
    assert not list((tmp_path / "merged").glob("*.bin"))
    assert (tmp_path / "merged" / "head.safetensors").is_file() == (settings.get("head") == "trained")


def test_embeddings_tied_to_the_output_layer_stay_tied_and_untouched(small: Any, tmp_path: Path) -> None:
    bare = AutoModelForCausalLM.from_pretrained(small.llama)
    bare.config.tie_word_embeddings = True
    tied = LlamaForCausalLM(bare.config)
    tied.load_state_dict(bare.state_dict(), strict=False)
    tied.tie_weights()
    tied.save_pretrained(tmp_path / "tied")
    for file in small.llama.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "tied")
    folder = adapter(small, tmp_path / "adapter", "causal-lm")
    export(folder, tmp_path / "merged", "merged", base=str(tmp_path / "tied"))
    wanted = outputs(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "tied"), str(folder)))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert np.abs(outputs(merged) - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    assert torch.equal(merged.model.embed_tokens.weight, tied.model.embed_tokens.weight)


def test_a_plain_adapter_is_what_vllm_and_the_converter_of_llama_cpp_read(small: Any, tmp_path: Path) -> None:
    """The rules are those of their sources, written down here a second time; neither is installed."""
    folder = adapter(small, tmp_path / "adapter", "causal-lm")
    export(folder, tmp_path / "plain", "peft")
    assert sorted(file.name for file in (tmp_path / "plain").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors"
    ]  # fmt: skip
    told = json.loads((tmp_path / "plain" / "adapter_config.json").read_text())
    assert isinstance(told["r"], int)
    assert isinstance(told["lora_alpha"], int)
    assert not told["modules_to_save"]
    assert not told["use_dora"]
    served = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {name.split(".")[-1] for name in told["target_modules"]} <= served
    weights = AutoModelForCausalLM.from_pretrained(small.llama).state_dict()
    tensors = load_file(tmp_path / "plain" / "adapter_model.safetensors")
    for name, value in tensors.items():
        assert name.startswith("base_model.model.")
        plain = name.replace("base_model.model.", "").replace(".lora_A.weight", ".weight")
        base = weights[plain.replace(".lora_B.weight", ".weight")]
        wanted = (told["r"], base.shape[1]) if ".lora_A." in name else (base.shape[0], told["r"])
        assert value.shape == wanted
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(small.llama), str(tmp_path / "plain"))
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(small.llama), str(folder))
    assert np.array_equal(outputs(model), outputs(again))


def test_what_neither_form_can_say_is_refused_and_leaves_nothing(small: Any, tmp_path: Path) -> None:
    rows = np.array([1, 2, 2])
    route = {"route.keys": np.ones((2, 32), np.float32), "route.centre": np.zeros(32, np.float32)}
    chosen = Slots(("a", "b"), rows, {**route, "route.tau": np.ones(1, np.float32)})
    folder = adapter(small, tmp_path / "routed", "classification", slots=chosen)
    with pytest.raises(ModelError, match="chooses among slots"):
        export(folder, tmp_path / "out", "merged")
    plain = adapter(small, tmp_path / "plain", "classification")
    with pytest.raises(ModelError, match="rank 3, at most 2"):
        export(plain, tmp_path / "out", "peft", most_rank=2)
    with pytest.raises(ConfigError, match="one of merged, peft"):
        export(plain, tmp_path / "out", "gguf")
    with pytest.raises(ConfigError, match="is there already"):
        export(plain, plain, "peft")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*draft"))


def test_a_weight_that_is_also_another_modules_is_not_merged(small: Any) -> None:
    from llmchain_fl.export import _check_tied

    class Layer(torch.nn.Module):
        def __init__(self, base: torch.nn.Linear) -> None:
            super().__init__()
            self.base_layer = base

    inner = torch.nn.Linear(3, 3)
    _check_tied(torch.nn.ModuleDict({"a": Layer(inner), "b": torch.nn.Linear(3, 3)}))
    with pytest.raises(ModelError, match="are one weight"):
        _check_tied(torch.nn.ModuleDict({"a": Layer(inner), "b": inner}))
