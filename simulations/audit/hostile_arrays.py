"""Arrays that a server might send: everything that a finite float32 array may hold.

The worst known kind overflows at far positions alone: lora_A along a direction that tells them from near ones, lora_B
at 1e38. Were a record padded to its neighbours' length, a long record would switch the gradients of all others off.
(Arrays that overflow at padding, wherever it is, are refused for free: every record has some.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from llmchain_fl.core.adapter.value import Array, Arrays
from llmchain_fl.core.adapter.variants import VARIANTS
from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.work import open_work
from simulations.audit.own_run import Setting
from simulations.audit.own_site import made_up_rows

HUGE, FACTOR = 1e38, 4.0
"""lora_B, and how long lora_A is: s FACTOR HUGE overflows, a hundredth of it does not."""
LARGEST = 1e12
NEAR = 8
"""Positions that short texts are padded to."""
WEIGHT = 1e6
"""How much more it matters that near positions are at 0 than that far ones are at 1."""
RECORDS = 150
"""Of two kinds, from which near and far are learnt."""


def ordinary(setting: Setting) -> Arrays:
    """An adapter that has been trained: every array moved."""
    draw = np.random.default_rng(2)
    return {n: (v + draw.normal(0, 0.1, v.shape)).astype(np.float32) for n, v in setting.arrays().items()}


def zero(setting: Setting) -> Arrays:
    """Every gradient of a factor is zero; a trained head has one."""
    return {name: value * 0 for name, value in setting.arrays().items()}


def ill_conditioned(setting: Setting) -> Arrays:
    """Products as usual, of factors 1e12 apart in size: gradients of 1e12, and of 1e-12."""
    arrays = ordinary(setting)
    size = {"lora_A": 1e-12, "lora_B": 1e12}
    return {n: (v * size.get(n.rpartition(".")[2], 1.0)).astype(np.float32) for n, v in arrays.items()}


def enlarged(setting: Setting) -> Arrays:
    """Of a variant without a product: its first array as large as a server may send one (``server/sound.py``)."""
    arrays = ordinary(setting)
    name = min(name for name in arrays if not name.startswith("head."))
    size = LARGEST / np.linalg.norm(arrays[name].astype(np.float64))
    return {**arrays, name: (arrays[name] * size).astype(np.float32)}


def overflow_far(setting: Setting) -> Arrays:
    """Finite at near positions, infinite at far ones: in the first layer, whose inputs are words and positions."""
    if not VARIANTS[setting.work.adapter.variant].product:
        return enlarged(setting)
    arrays = ordinary(setting)
    module = _first_module(setting.resident().shapes)
    direction = _far_direction(setting, module)
    shapes = setting.resident().shapes
    a, b = (np.zeros(shapes[f"{module}.{factor}"], dtype=np.float32) for factor in ("lora_A", "lora_B"))
    a[0], b[:, 0] = FACTOR * direction, HUGE
    return {**arrays, f"{module}.lora_A": a, f"{module}.lora_B": b}


def queries_of_no_number(setting: Setting) -> Arrays:
    """Infinity less infinity in every query: attention may be finite all the same where a pass leaves the mask out."""
    if not VARIANTS[setting.work.adapter.variant].product:
        return enlarged(setting)
    arrays, shapes = ordinary(setting), setting.resident().shapes
    module = _first_module(shapes)
    rank, width = shapes[f"{module}.lora_A"]
    direction = np.random.default_rng(4).normal(size=width) * 1e3
    a = np.tile(direction, (rank, 1)).astype(np.float32)
    b = np.tile(np.resize([3 * HUGE, -3 * HUGE, 0.0], rank), (shapes[f"{module}.lora_B"][0], 1)).astype(np.float32)
    return {**arrays, f"{module}.lora_A": a, f"{module}.lora_B": b}


ARRAYS: Mapping[str, Callable[[Setting], Arrays]] = MappingProxyType(
    {
        "ordinary": ordinary,
        "zero": zero,
        "ill-conditioned": ill_conditioned,
        "overflowing": overflow_far,
        "of no number": queries_of_no_number,
    }
)
"""kind -> arrays for a setting."""


def _first_module(arrays: Iterable[str]) -> str:
    """The query of the first layer, or the first adapted module where none is called so."""
    modules = sorted({name.rpartition(".")[0] for name in arrays if name.endswith("lora_B")})
    queries = [name for name in modules if "query" in name or "q_proj" in name]
    return (queries or modules)[0]


def _far_direction(setting: Setting, module: str) -> Array:
    """a with a x = 0 for inputs x at near positions and 1 for those at far ones, as well as weighed ridge can tell."""
    resident, task = open_work(setting.work.resident, setting.work.task)
    examples = task.encode(made_up_rows(setting.work.task, ["a"] * RECORDS, seed=8))
    known = sorted(set(resident.base.tokenizer.get_vocab().values()) - {resident.base.tokenizer.pad_token_id})
    draw, most = np.random.default_rng(9), setting.work.task.max_tokens
    examples.ids += [draw.choice(known, size=int(draw.integers(3, most + 1))) for _ in range(RECORDS)]
    resident.reset()
    inputs: list[Tensor] = []
    layer = resident.base.module.get_submodule(module)
    handle = layer.register_forward_hook(lambda _layer, given, _result: inputs.append(given[0].detach()))
    try:
        with torch.no_grad():
            task.forward(Examples(examples.ids, np.zeros(len(examples), dtype=np.int64)), range(len(examples)))
    finally:
        handle.remove()
    given = inputs[0].double().cpu()
    x, near = given.reshape(-1, given.shape[-1]), (torch.arange(given.shape[1]) < NEAR).repeat(len(given))
    weighed = x * torch.where(near, WEIGHT, 1.0)[:, None]
    gram = x.T @ weighed + 1e-6 * torch.eye(x.shape[1], dtype=torch.float64)
    return np.asarray(torch.linalg.solve(gram, x[~near].sum(dim=0)).numpy(), dtype=np.float32)
