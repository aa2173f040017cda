"""Attach LoRA (or, by name, another variant) to a base; what peft reads of it: ``llmchain_fl/adapter/peft_files.py``.

An adapter directory is peft's own (``adapter_config.json``, ``adapter_model.safetensors``); our ``head.*`` is beside.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import peft
from torch import nn

from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.adapter.variants import VARIANTS
from llmchain_fl.core.base_model import layer_stacks
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.first_pass import TEXT_BASES, first_line, has_two_stacks
from llmchain_fl.core.plugins import Named, named

if TYPE_CHECKING:
    from llmchain_fl.core.adapter.variants.beside import Half

UNDO = "undo_variant"
"""What a layer with a part of a variant without a product has: it takes the part off again."""
PREFIX, _ADAPTER = "base_model.model.", "default"
EVERY = AdapterSpec(1, 1.0)
"""All linear layers."""
CORE = "lora_R"
CORED: Named[Callable[[nn.Linear], nn.Module]] = Named({"layer": "llmchain_fl.core.adapter.cored:Cored"})


def target_modules(module: nn.Module, spec: AdapterSpec) -> list[str]:
    """Full names of the linear layers to adapt, inside the transformer layers only (no pooler, no output layer).

    A target is the end of a name in whole parts, as in peft: ``query``, ``attention.output.dense``.

    Raises:
        ModelError: there is no linear layer, none with a name of ``spec.targets``, or ``last_layers`` is more than
            there are.
    """

    def is_linear(part: nn.Module) -> bool:
        return isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"

    return chosen_layers(module, spec, is_linear, "linear layer")


def chosen_layers(module: nn.Module, spec: AdapterSpec, fits: Callable[[nn.Module], bool], kind: str) -> list[str]:
    """The same of any kind of layer: those that ``fits`` says, called ``kind`` in words."""
    stacks = layer_stacks(module)
    shortest = min(len(stack) for _, stack in stacks)
    if spec.last_layers > shortest:
        raise ModelError(
            f"adapter.last_layers = {spec.last_layers}: the model has {shortest} layers",
            remedy=f"use 0 (all) to {shortest}",
        )
    names = [
        f"{stack_name}.{position}.{name}"
        for stack_name, stack in stacks
        for position in range(len(stack) - spec.last_layers if spec.last_layers else 0, len(stack))
        for name, part in stack[position].named_modules()
        if fits(part)
    ]
    if not names:
        parts = [part for _, stack in stacks for part in stack.modules()]
        kinds = sorted({type(part).__name__ for part in parts if [*part.parameters(recurse=False)]})
        raise ModelError(
            f"{type(module).__name__} has no {kind}s to adapt (its layers are made of {', '.join(kinds)})",
            remedy=TEXT_BASES,
        )
    if spec.targets == ("all-linear",):
        return names
    known = endings(names)
    missing = [target for target in spec.targets if not any(f".{name}".endswith(f".{target}") for name in names)]
    if missing or not spec.targets:
        raise ModelError(
            f"adapter.targets: no {kind} is named {', '.join(missing) or '(an empty list)'}",
            remedy=f"the model has {', '.join(known)}, or all-linear",
        )
    return [name for name in names if any(f".{name}".endswith(f".{target}") for target in spec.targets)]


def endings(names: Iterable[str]) -> list[str]:
    """The last parts of the names of layers: what ``adapter.targets`` may hold."""
    return sorted({name.rpartition(".")[2] for name in names})


def attach(module: nn.Module, spec: AdapterSpec) -> dict[str, nn.Parameter]:
    """Wrap the chosen layers of ``module`` in place; return our name -> parameter (float32, on the module's device).

    Raises:
        ModelError: it already carries an adapter (call ``detach`` first), or peft cannot adapt these layers.
    """
    if lora_layers(module) or any(UNDO in vars(part) for part in module.modules()):
        raise ModelError("the base model already carries an adapter", remedy="detach it first")
    half = half_of(spec)
    if half is not None:
        try:
            return half.attach(module, spec)
        except ModelError:
            detach(module)
            raise
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
            layer.lora_A[_ADAPTER] = CORED["layer"](layer.lora_A[_ADAPTER])
    parameters: dict[str, nn.Parameter] = {}
    for name, parameter in wrapped.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            parameters[_short(name.removeprefix(PREFIX))] = parameter
    return parameters


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


def detach(module: nn.Module) -> None:
    """Take every adapted layer off again and leave the base as it was loaded."""
    for name, part in lora_layers(module).items():
        parent = module.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], part.get_base_layer())
    for part in [*module.modules()]:
        undo = vars(part).pop(UNDO, None)
        if undo is not None:
            undo()
    for leftover in ("peft_config", "_hf_peft_config_loaded"):
        if leftover in vars(module):
            delattr(module, leftover)


def half_of(spec: AdapterSpec) -> Half | None:
    """The half in the model of the spec's variant; None for the pair of factors, which is in this file."""
    place = VARIANTS[spec.variant].half
    return cast("Half", named(place)) if place else None


def _lora_config(module: nn.Module, spec: AdapterSpec, base_name: str = "") -> peft.LoraConfig:
    return peft.LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        target_modules=target_modules(module, spec),
        lora_dropout=0.0,
        bias="none",
        **_common(module, base_name),
    )


def _common(module: nn.Module, base_name: str) -> dict[str, Any]:
    kind = "CAUSAL_LM" if getattr(module, "lm_head", None) is not None else "FEATURE_EXTRACTION"
    kind = "SEQ_2_SEQ_LM" if has_two_stacks(module) else kind
    return {"task_type": kind, "base_model_name_or_path": base_name or None, "inference_mode": True}


def config_for(module: nn.Module, spec: AdapterSpec, base_name: str) -> peft.PeftConfig:
    """The ``adapter_config.json`` of this adapter; call before ``attach`` (names are those of the bare base)."""
    half = half_of(spec)
    if half is None:
        return _lora_config(module, spec, base_name)
    return half.config(half.layers(module, spec), spec, **_common(module, base_name))
