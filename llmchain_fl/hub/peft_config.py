"""``adapter_config.json``: peft obeys it, so nothing may stand in it that the signed description does not say.

peft would load the base that it names, wrap other layers, add biases, save further modules or read embeddings. Every
field that this project does not set must be empty; those it sets must agree with ``work.json`` and the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.hub.layout import BOUNDS, CONFIG
from llmchain_fl.hub.refused import refuse
from llmchain_fl.hub.strict_json import parse_object

_USUAL: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "peft_type": ("LORA",),
        "task_type": ("FEATURE_EXTRACTION", "CAUSAL_LM"),
        "bias": ("none",),
        "inference_mode": (True,),
        "init_lora_weights": (True,),
        "megatron_core": ("megatron.core", None),
        "qalora_group_size": (16,),
        "lora_dropout": (0.0,),
    }
)
"""Fields that peft writes with these values for a plain LoRA of this project."""
_OWN = frozenset({"r", "lora_alpha", "target_modules", "base_model_name_or_path", "peft_version"})
_EMPTY: tuple[object, ...] = (None, False, {}, [])


def check_config(data: bytes, work: WorkSpec, arrays: Arrays, base_name: str) -> None:
    """Refuse a configuration that is not this adapter's, or that asks peft for more than two factors a layer.

    ===================================================  ========
    field                                                refused
    ===================================================  ========
    rank or alpha other than in ``work.json``            tensors
    layers other than those of the tensors               tensors
    another base model than ``hub.json`` names           base
    any other field that is set                          form
    ===================================================  ========

    Raises:
        HubError: see the table.
    """
    tree = parse_object(data, CONFIG, BOUNDS[CONFIG])
    for name, value in tree.items():
        if name not in _OWN and not any(value == one and type(value) is type(one) for one in _USUAL.get(name, _EMPTY)):
            raise refuse("form", f"{CONFIG} sets {name}, which this project leaves empty")
    if not {*_OWN, "peft_type", "bias"} <= set(tree):
        raise refuse("form", f"{CONFIG} lacks fields of a LoRA adapter")
    if tree["r"] != work.adapter.rank or tree["lora_alpha"] != work.adapter.alpha:
        raise refuse("tensors", f"{CONFIG} has rank {tree['r']!r} and alpha {tree['lora_alpha']!r}, not work.json's")
    layers = sorted({name.rpartition(".")[0] for name in arrays if not name.startswith("head.")})
    if tree["target_modules"] != layers:
        raise refuse("tensors", f"{CONFIG} adapts other layers than there are tensors of")
    if tree["base_model_name_or_path"] != base_name:
        raise refuse("base", f"{CONFIG} names another base model than hub.json")
