"""The only file that knows peft: attach LoRA to a base, and write what peft reads.

An adapter directory is peft's own (``adapter_config.json``, ``adapter_model.safetensors``); our ``head.*`` is beside.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import peft
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor, nn

from llmchain_fl.core.adapter.value import AdapterSpec, Arrays
from llmchain_fl.core.base_model import layer_stack
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.first_pass import TEXT_BASES, first_line

_PREFIX, _ADAPTER = "base_model.model.", "default"
EVERY = AdapterSpec(1, 1.0)
"""All linear layers."""
CORE = "lora_R"


class Cored(nn.Module):
    """``x -> R A x``: lora_A of a layer with a core between its two factors (``fedsb``), R zero at first."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        rank = inner.out_features
        self.A = inner
        self.R = nn.Linear(rank, rank, bias=False, device=inner.weight.device, dtype=inner.weight.dtype)
        nn.init.zeros_(self.R.weight)

    @property
    def weight(self) -> Tensor:
        """That of A: peft looks at its number type."""
        return self.A.weight

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_in] -> [..., r]."""
        return self.R(self.A(x))  # type: ignore[no-any-return]


def target_modules(module: nn.Module, spec: AdapterSpec) -> list[str]:
    """Full names of the linear layers to adapt, inside the transformer layers only (no pooler, no output layer).

    A target is the end of a name in whole parts, as in peft: ``query``, ``attention.output.dense``.

    Raises:
        ModelError: there is no linear layer, none with a name of ``spec.targets``, or ``last_layers`` is more than
            there are.
    """
    stack_name, stack = layer_stack(module)
    if spec.last_layers > len(stack):
        raise ModelError(
            f"adapter.last_layers = {spec.last_layers}: the model has {len(stack)} layers",
            remedy=f"use 0 (all) to {len(stack)}",
        )
    first = len(stack) - spec.last_layers if spec.last_layers else 0
    linears = [
        f"{stack_name}.{position}.{name}"
        for position in range(first, len(stack))
        for name, part in stack[position].named_modules()
        if isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"
    ]
    if not linears:
        kinds = sorted({type(part).__name__ for part in stack.modules() if [*part.parameters(recurse=False)]})
        raise ModelError(
            f"{type(module).__name__} has no linear layers to adapt (its layers are made of {', '.join(kinds)})",
            remedy=TEXT_BASES,
        )
    if spec.targets == ("all-linear",):
        return linears
    known = endings(linears)
    missing = [target for target in spec.targets if not any(f".{name}".endswith(f".{target}") for name in linears)]
    if missing or not spec.targets:
        raise ModelError(
            f"adapter.targets: no linear layer is named {', '.join(missing) or '(an empty list)'}",
            remedy=f"the model has {', '.join(known)}, or all-linear",
        )
    return [name for name in linears if any(f".{name}".endswith(f".{target}") for target in spec.targets)]


def endings(names: Iterable[str]) -> list[str]:
    """The last parts of the names of layers: what ``adapter.targets`` may hold."""
    return sorted({name.rpartition(".")[2] for name in names})


def attach(module: nn.Module, spec: AdapterSpec) -> dict[str, nn.Parameter]:
    """Wrap the chosen layers of ``module`` in place; return our name -> parameter (float32, on the module's device).

    Raises:
        ModelError: it already carries an adapter (call ``detach`` first), or peft cannot adapt these layers.
    """
    if any("lora_" in name for name, _ in module.named_parameters()):
        raise ModelError("the base model already carries an adapter", remedy="detach it first")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that transformers has renamed, of experts that are not adapted
        try:
            wrapped = peft.get_peft_model(module, _lora_config(module, spec), adapter_name=_ADAPTER)
        except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
            detach(module)
            others = [name for name in endings(target_modules(module, EVERY)) if f"'{name}'" not in str(error)]
            raise ModelError(
                f"peft cannot adapt {type(module).__name__}: {first_line(error)}",
                remedy=f"name other layers in adapter.targets: {', '.join(others) or '(there are none)'}",
            ) from error
    if CORE in spec.trained:
        for layer in lora_layers(module).values():
            layer.lora_A[_ADAPTER] = Cored(layer.lora_A[_ADAPTER])
    found: dict[str, nn.Parameter] = {}
    for name, parameter in wrapped.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            found[_short(name.removeprefix(_PREFIX))] = parameter
    return found


def _short(name: str) -> str:
    """peft's name of a factor -> ours."""
    for theirs, ours in (
        (f".lora_A.{_ADAPTER}.R.weight", f".{CORE}"),
        (f".lora_A.{_ADAPTER}.A.weight", ".lora_A"),
        (f".{_ADAPTER}.weight", ""),
    ):
        name = name.replace(theirs, ours)
    return name


def lora_layers(module: nn.Module) -> dict[str, Any]:
    """Module path -> adapted layer, in the order of the model."""
    return {name: part for name, part in module.named_modules() if isinstance(part, peft.tuners.lora.LoraLayer)}


def frozen_weight(layer: Any) -> Tensor:
    """W0 of an adapted layer as d_out x d_in, float32 (a Conv1D stores it transposed)."""
    base = layer.get_base_layer()
    weight: Tensor = base.weight.detach().float()
    return weight.T if type(base).__name__ == "Conv1D" else weight


def detach(module: nn.Module) -> None:
    """Take every LoRA layer off again and leave the base as it was loaded."""
    for name, part in lora_layers(module).items():
        parent = module.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], part.get_base_layer())
    for leftover in ("peft_config", "_hf_peft_config_loaded"):
        if leftover in vars(module):
            delattr(module, leftover)


def _lora_config(module: nn.Module, spec: AdapterSpec, base_name: str = "") -> peft.LoraConfig:
    kind = "CAUSAL_LM" if getattr(module, "lm_head", None) is not None else "FEATURE_EXTRACTION"
    return peft.LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=target_modules(module, spec),
        lora_dropout=0.0,
        bias="none",
        task_type=kind,
        base_model_name_or_path=base_name or None,
        inference_mode=True,
    )


def config_for(module: nn.Module, spec: AdapterSpec, base_name: str) -> peft.LoraConfig:
    """The ``adapter_config.json`` of this adapter; call before ``attach`` (names are those of the bare base)."""
    return _lora_config(module, spec, base_name)


def write_peft(folder: Path, arrays: Arrays, config: peft.LoraConfig) -> None:
    """Write LoRA arrays so that ``PeftModel.from_pretrained(base, folder)`` reads them.

    Their rank may be another than the configuration's (a fold laid into the pair); the scale is the configuration's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{_PREFIX}{name}.weight": np.ascontiguousarray(value)
        for name, value in arrays.items()
        if not name.startswith("head.")
    }
    (folder / "adapter_model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    ranks = {value.shape[0] for name, value in arrays.items() if name.endswith(".lora_A")}
    rank = next(iter(ranks), config.r)
    told = copy.copy(config)
    told.lora_alpha, told.r = config.lora_alpha / config.r * rank, rank  # the scale alpha / r stays
    told.target_modules = sorted(config.target_modules)  # peft keeps a set: another order in every process
    told.save_pretrained(str(folder))


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


def read_peft(folder: Path) -> Arrays:
    """LoRA arrays of a peft directory, under our names.

    Raises:
        ModelError: no ``adapter_model.safetensors`` (a pickled ``.bin`` is never read) or a foreign tensor name.
    """
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelError(
            f"{folder} has no adapter_model.safetensors",
            remedy="only safetensors adapters are read, never pickled .bin files",
        )
    arrays: Arrays = {}
    for name, value in read_tensors(file).items():
        short = name.removeprefix(_PREFIX).removesuffix(".weight")
        if not short.endswith(("lora_A", "lora_B")):
            raise ModelError(
                f"{file} holds a tensor that is no LoRA factor",
                remedy="give an adapter written by this project or by peft's LoRA",
            )
        arrays[short] = value.astype(np.float32)
    return arrays
