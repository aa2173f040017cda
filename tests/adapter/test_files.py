from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM

from llmchain_fl.adapter.files import Lineage, read_adapter, write_adapter
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.errors import LlmchainError, ModelError
from llmchain_fl.core.work import GuardSpec, inference

LINEAGE = Lineage(run="r1", round=4, stage="cards", parent="abc")


def written(small: Any, folder: Path, kind: str = "classification", **settings: Any) -> tuple[Any, Any, str]:
    """(work, task, content hash) of an adapter written to ``folder``."""
    task = small.task(kind, **settings)
    work = small.work(kind, **settings, guards=[GuardSpec("ema", (("decay", 0.5),))], plan=small.plan())
    return work, task, write_adapter(folder, task.resident, task.resident.arrays(), work, LINEAGE)


@pytest.mark.parametrize(
    "settings", [{}, {"head": "trained"}, {"kind": "causal-lm"}, {"last_layers": 1, "trained": ("lora_B",)}]
)
def test_an_adapter_survives_the_folder(small: Any, tmp_path: Path, settings: dict[str, Any]) -> None:
    work, task, content = written(small, tmp_path, **settings)
    back_work, arrays = read_adapter(tmp_path)
    assert digest(arrays) == digest(task.resident.arrays()) == content
    assert back_work == replace(inference(work), adapter=replace(work.adapter, trained=("lora_A", "lora_B")))
    assert (back_work.guards, back_work.plan) == ((), None)


def test_the_manifest_says_where_the_adapter_comes_from(small: Any, tmp_path: Path) -> None:
    _, task, content = written(small, tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text()) == {
        "content": content,
        "run": "r1",
        "round": 4,
        "stage": "cards",
        "parent": "abc",
        "base": task.resident.base.public_name,
    }


@pytest.mark.parametrize("kind", ["classification", "causal-lm"])
def test_peft_reads_the_folder_without_us(small: Any, tmp_path: Path, kind: str) -> None:
    """``PeftModel.from_pretrained`` on a bare transformers model gives the resident's output."""
    _, task, _ = written(small, tmp_path, kind)
    ids = torch.randint(4, 20, (2, 6), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ours = task.resident.forward(ids, torch.ones_like(ids), {}, range(2))[0]
        loader, path = (AutoModel, small.bert) if kind == "classification" else (AutoModelForCausalLM, small.llama)
        theirs = peft.PeftModel.from_pretrained(loader.from_pretrained(path), str(tmp_path))(input_ids=ids)[0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_second_adapter_in_the_same_folder_leaves_nothing_of_the_first(small: Any, tmp_path: Path) -> None:
    written(small, tmp_path, head="trained")
    work, task, content = written(small, tmp_path)
    assert read_adapter(tmp_path)[0] == inference(work)
    assert digest(read_adapter(tmp_path)[1]) == content == digest(task.resident.arrays())


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "head.safetensors"])
def test_a_changed_array_is_noticed(small: Any, tmp_path: Path, name: str) -> None:
    written(small, tmp_path, head="trained")
    arrays = load_file(tmp_path / name)
    first = next(iter(arrays))
    arrays[first].flat[0] += np.float32(1e-3)
    save_file(arrays, tmp_path / name)
    with pytest.raises(ModelError, match="not the one its manifest names"):
        read_adapter(tmp_path)


def test_an_added_and_a_missing_array_are_noticed(small: Any, tmp_path: Path) -> None:
    written(small, tmp_path, head="trained")
    (tmp_path / "head.safetensors").rename(tmp_path / "kept")
    with pytest.raises(ModelError, match="manifest"):
        read_adapter(tmp_path)
    save_file({**load_file(tmp_path / "kept"), "head.more": np.zeros(2, np.float32)}, tmp_path / "head.safetensors")
    with pytest.raises(ModelError, match="manifest"):
        read_adapter(tmp_path)


def test_a_folder_with_only_a_pickled_adapter_is_refused(small: Any, tmp_path: Path) -> None:
    written(small, tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"never pickled \.bin files"):
        read_adapter(tmp_path)


def test_a_folder_without_an_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no adapter of this project"):
        read_adapter(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["work.json", "manifest.json", "adapter_model.safetensors", "head.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "empty", "torn", "other"])
def test_a_damaged_file_is_an_error_of_ours(small: Any, tmp_path: Path, name: str, damage: str) -> None:
    source = tmp_path / "adapter"
    written(small, source, head="trained")
    file = shutil.copytree(source, tmp_path / "damaged") / name
    content = file.read_bytes()
    file.unlink() if damage == "gone" else file.write_bytes(
        {"empty": b"", "torn": content[: len(content) // 2], "other": b"[1]"}[damage]
    )
    with pytest.raises(LlmchainError) as caught:
        read_adapter(tmp_path / "damaged")
    assert caught.value.remedy
