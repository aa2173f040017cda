from __future__ import annotations

import json
import os
import re
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from llmchain_fl.core.base_model import KNOWN, BaseSpec, choose_device, layer_stack, load_base, locate
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.first_pass import first_pass


def test_a_base_is_frozen_and_loaded_once(small: Any) -> None:
    load_base.cache_clear()  # other tests may have left an adapter on it
    base = load_base(small.base())
    assert load_base(small.base()) is base
    assert not any(parameter.requires_grad for parameter in base.module.parameters())
    assert base.hidden_size == 32
    assert base.device == torch.device("cpu")


@pytest.mark.parametrize("kind", ["encoder", "causal-lm"])
def test_a_base_gives_the_same_output_twice_in_training_mode(small: Any, kind: str) -> None:
    """No dropout is left: neither in modules nor in attention, where some architectures keep it as a plain number."""
    base = load_base(small.base(kind))
    base.module.train()
    ids = torch.arange(4, 12)[None]
    first, second = (base.module(input_ids=ids)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_a_tokenizer_without_padding_pads_with_the_end_token(small: Any) -> None:
    tokenizer = load_base(small.base("causal-lm")).tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2


def test_half_precision_is_kept(small: Any) -> None:
    base = load_base(small.base(dtype="bfloat16"))
    assert {parameter.dtype for parameter in base.module.parameters()} == {torch.bfloat16}


def test_a_local_model_is_loaded_without_a_look_at_the_network(
    small: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was touched")

    shutil.copytree(small.bert, tmp_path / "copy")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert load_base(BaseSpec(str(tmp_path / "copy"), device="cpu")).hidden_size == 32
    assert "HF_HUB_OFFLINE" not in os.environ


def test_pickled_weights_are_not_read(small: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small.bert, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(BaseSpec(str(folder), device="cpu"))


def test_code_that_comes_with_a_model_is_not_run(small: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small.bert, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    with pytest.raises(ModelError):
        load_base(BaseSpec(str(folder), device="cpu"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_damaged_model_is_one_error_with_a_remedy(small: Any, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small.bert, folder)
    (folder / damage).write_bytes(b"{ damaged")
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_base(BaseSpec(str(folder), device="cpu"))
    assert caught.value.remedy


def test_a_number_type_that_torch_does_not_have_is_refused(small: Any) -> None:
    with pytest.raises(ModelError, match="float31"):
        load_base(small.base(dtype="float31"))


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/model", "~/model", "a/b/c", ""])
def test_a_path_without_a_directory_is_refused_with_the_known_names(path: str) -> None:
    with pytest.raises(ModelError, match="minilm"):
        locate(path)


def test_a_file_and_a_directory_without_a_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="no such directory"):
        locate(str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"no config\.json"):
        locate(str(tmp_path))


def test_anything_else_is_taken_as_a_hub_id() -> None:
    assert [locate(name).local for name in ("roberta-base", "org/name")] == [False, False]


def test_every_known_name_can_be_located() -> None:
    assert {locate(name).public_name for name in KNOWN} >= {"sentence-transformers/all-MiniLM-L6-v2"}


def test_cuda_without_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ModelError, match="cuda"):
        choose_device("cuda")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ModelError, match="'tpu'"):
        choose_device("tpu")


def test_the_layer_stack_is_found_in_both_kinds(small: Any) -> None:
    assert layer_stack(load_base(small.base()).module)[0] == "encoder.layer"
    name, stack = layer_stack(load_base(small.base("causal-lm")).module)
    assert (name, len(stack)) == ("model.layers", 3)


def test_a_model_without_a_stack_is_refused() -> None:
    module = nn.Module()
    module.config = type("Config", (), {"num_hidden_layers": 2})()
    module.parts = nn.ModuleList([nn.Linear(1, 1), nn.Conv1d(1, 1, 1)])
    with pytest.raises(ModelError, match="2 equal transformer layers"):
        layer_stack(module)


def test_layers_of_two_kinds_and_layers_that_are_one_are_a_stack() -> None:
    module, block = nn.Module(), nn.Sequential(nn.Linear(4, 4))
    module.config = type("Config", (), {"num_hidden_layers": 2})()
    module.small = nn.ModuleList([nn.Sequential(nn.Linear(1, 1)), nn.Sequential(nn.Linear(1, 1))])
    module.shared = nn.ModuleList([nn.Sequential(nn.Linear(9, 9))])
    assert layer_stack(module)[0] == "small"  # the number of layers first
    module.large = nn.ModuleList([block, nn.ModuleDict({"x": nn.Linear(4, 4)})])
    assert layer_stack(module)[0] == "large"  # then the weights
    module.config.num_hidden_layers = 1
    assert layer_stack(module)[0] == "shared"


class Base(nn.Module):
    """What ``first_pass`` asks of a model; ``fault``: what is wrong with it."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.table, self.fault, self.device = nn.Embedding(9, 4), fault, torch.device("cpu")
        self.dtype = torch.float32
        self.config = type("Config", (), {"hidden_size": 4})()
        self.register_buffer("seen", torch.zeros(()))

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        hidden = self.table(input_ids)
        if self.fault == "counts" and self.training:
            self.seen = self.seen + 1
        if self.fault == "chance" and self.training:
            hidden = hidden + torch.randn_like(hidden)
        if self.fault == "not finite":
            hidden = hidden / 0
        if self.fault == "no mask" and not attention_mask.all():
            raise ValueError("what it was given: a mask")
        return SimpleNamespace(last_hidden_state=torch.cat([hidden, hidden], dim=-1))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("counts", "changes with every pass (seen)"),
        ("chance", "gives two numbers for one text"),
        ("not finite", "gives numbers that are not finite"),
        ("no mask", "cannot compute 8 token ids alone: what it was given: a mask"),
    ],
)
def test_what_a_base_does_wrong_is_found_by_passes_over_made_up_tokens(fault: str, words: str) -> None:
    with pytest.raises(ModelError, match=re.escape(words)) as caught:
        first_pass(Base(fault), "here", "encoder")
    assert caught.value.remedy


def test_the_width_of_a_base_is_that_of_what_it_gives() -> None:
    """Some project what leaves their layers (OPT-350m)."""
    assert first_pass(Base(""), "here", "encoder") == (8, False)


@pytest.mark.parametrize("kind", ["encoder", "causal-lm"])
def test_an_encoder_with_a_decoder_is_refused_in_words(small: Any, tmp_path: Path, kind: str) -> None:
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    T5ForConditionalGeneration(T5Config(vocab_size=30, d_model=8, num_layers=1, d_ff=8, num_heads=1)).save_pretrained(
        tmp_path
    )
    AutoTokenizer.from_pretrained(small.bert).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="an encoder with a decoder, which this kind of task has no use for"):
        load_base(BaseSpec(str(tmp_path), device="cpu", kind=kind))


@pytest.mark.slow
def test_the_real_minilm_puts_like_texts_together() -> None:
    base = load_base(BaseSpec("minilm", device="cpu"))
    texts = ["my card was stolen", "someone took my bank card", "the weather is nice"]
    batch = base.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = base.module(**batch).last_hidden_state
    weight = batch["attention_mask"][..., None]
    vectors = nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)
    alike = vectors @ vectors.T
    assert alike[0, 1] > alike[0, 2] + 0.3
