"""An adapter as peft's own two files, ``adapter_config.json`` and ``adapter_model.safetensors``. No pickle is read."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import peft
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import nn

from llmchain_fl.core.adapter.peft_model import PREFIX
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.adapter.variants.beside import Half
from llmchain_fl.core.errors import ModelError


def write_variant(folder: Path, arrays: Arrays, config: peft.PeftConfig, half: Half, module: nn.Module) -> None:
    """Write the arrays of a variant without a product so that ``PeftModel.from_pretrained(base, folder)`` reads them.

    ``module``: the base that carries it, for the sizes of its layers.
    """
    _write(folder, half.written(arrays, module), config)


def write_peft(folder: Path, arrays: Arrays, config: peft.LoraConfig) -> None:
    """Write LoRA arrays so that ``PeftModel.from_pretrained(base, folder)`` reads them.

    Their rank may be another than the configuration's (a fold laid into the pair); the scale is the configuration's.
    """
    tensors = {
        f"{name}.weight": np.ascontiguousarray(value) for name, value in arrays.items() if not name.startswith("head.")
    }
    ranks = {value.shape[0] for name, value in arrays.items() if name.endswith(".lora_A")}
    rank = next(iter(ranks), config.r)
    written = copy.copy(config)
    written.lora_alpha, written.r = config.lora_alpha / config.r * rank, rank  # the scale alpha / r stays
    _write(folder, tensors, written)


def _write(folder: Path, tensors: dict[str, Any], config: peft.PeftConfig) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data = save({f"{PREFIX}{name}": value for name, value in tensors.items()}, metadata={"format": "pt"})
    (folder / "adapter_model.safetensors").write_bytes(data)
    written = copy.copy(config)
    written.target_modules = sorted(config.target_modules)  # peft keeps a set: another order in every process
    written.save_pretrained(str(folder))


def read_tensors(file: Path) -> Arrays:
    """A safetensors file.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return dict(load_file(file))
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{file} cannot be read as safetensors", remedy="restore the file; it is damaged or missing"
        ) from error


def read_peft(folder: Path, half: Half | None = None) -> Arrays:
    """Arrays of a peft directory, under our names: LoRA's, or those of another variant's ``half``.

    Raises:
        ModelError: no ``adapter_model.safetensors`` (a pickled ``.bin`` is never read) or a foreign tensor name.
    """
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelError(
            f"{folder} has no adapter_model.safetensors",
            remedy="only safetensors adapters are read, never pickled .bin files",
        )
    tensors = read_tensors(file)
    if half is not None:
        return half.read({name.removeprefix(PREFIX): value for name, value in tensors.items()})
    arrays: Arrays = {}
    for name, value in tensors.items():
        short = name.removeprefix(PREFIX).removesuffix(".weight")
        if not short.endswith(("lora_A", "lora_B")):
            raise ModelError(
                f"{file} holds a tensor that is no LoRA factor",
                remedy="give an adapter written by this project or by peft's LoRA",
            )
        arrays[short] = value.astype(np.float32)
    return arrays
