"""A released adapter whose outputs a guard holds on to: how it travels, and how a site computes with it.

A teacher travels array by array (``<prefix>.<array>``) with its scale (``<prefix>-scale.value``); factors that are the
start of the adapter need not travel. A site of another rank or alpha cannot take its factors: there the whole product
goes into the fold, which has a rank and scale of its own, so that every site has the same teacher.

==========================================  ======================================================
case                                        result
==========================================  ======================================================
same rank, core and scale                   its arrays, laid over the start; its fold, or none
another rank or scale at this site          the fold holds ``s B R A`` (and its fold), B is zero
no lora_A travelled                         that of the start, at the teacher's rank
slots to choose among (``routing.py``)      as they are; at a site of another rank their plain sum
==========================================  ======================================================
"""

from __future__ import annotations

import numpy as np

from llmchain_fl.core.adapter.product import modules, product_pair, with_start
from llmchain_fl.core.adapter.resident import Resident, State
from llmchain_fl.core.adapter.value import Arrays, is_beside, is_fold


def sent(prefix: str, arrays: Arrays, scale: float) -> Arrays:
    """The payload of a teacher; nothing without one."""
    if not arrays:
        return {}
    payload = {f"{prefix}.{name}": value for name, value in arrays.items()}
    return payload | {f"{prefix}-scale.value": np.array([scale], dtype=np.float32)}


def received(prefix: str, payload: Arrays) -> tuple[Arrays, float]:
    """(arrays, scale) of :func:`sent`; an empty dict without a teacher, scale 0 where none is told."""
    start = f"{prefix}."
    arrays = {name.removeprefix(start): value for name, value in payload.items() if name.startswith(start)}
    scale = payload.get(f"{prefix}-scale.value")
    return arrays, float(scale.ravel()[0]) if scale is not None and scale.size == 1 else 0.0


def state_of(resident: Resident, arrays: Arrays, scale: float) -> State:
    """The teacher as a whole adapter of this resident; ``scale`` 0 means the resident's own.

    Raises:
        ModelError: it belongs to another base model or label list.
    """
    own = resident.spec.adapter
    factors = {name: value.shape for name, value in arrays.items() if not (is_fold(name) or is_beside(name))}
    fits = all(shape == resident.shapes.get(name) for name, shape in factors.items())
    if fits and scale in (0.0, np.float32(own.scale)):
        return resident.state_of(arrays)
    state = {name: value for name, value in arrays.items() if name.startswith("head.")}
    whole = with_start(arrays, resident.shapes, own.seed)
    for module in modules(arrays):
        left, right = product_pair(whole, module, scale or own.scale)
        state |= {f"{module}.fold_B": left.astype(np.float32), f"{module}.fold_A": right.astype(np.float32)}
    return resident.state_of(state)
