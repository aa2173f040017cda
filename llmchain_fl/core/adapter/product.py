"""Delta W of an adapter as one pair of factors. Numpy only; nothing dense is formed.

    Delta W = fold_B fold_A + s B (R) A  =  left right         left [d_out, n], right [n, d_in], float64

All sites and rounds share the coordinates of W, whatever their rank, core or fold; factors they do not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.adapter.value import fresh_arrays
from llmchain_fl.core.errors import ModelError

Float = NDArray[np.float64]
Arrays = Mapping[str, NDArray[np.floating]]
Pair = tuple[Float, Float]


def modules(arrays: Mapping[str, object]) -> list[str]:
    """Module paths that have a ``lora_B``, sorted."""
    return sorted(name.removesuffix(".lora_B") for name in arrays if name.endswith(".lora_B"))


def product_pair(arrays: Arrays, module: str, scale: float) -> Pair:
    """Delta W of one module as ``(left, right)``.

    Args:
        arrays: lora_A (r x d_in) and lora_B (d_out x r), and lora_R, fold_A, fold_B where there are any.
        module: its path.
        scale: s = alpha / r; the fold's is 1.

    Raises:
        ModelError: a factor is missing.

    | arrays | rank of the pair |
    |---|---|
    | lora_A, lora_B | r |
    | and a core lora_R | r |
    | and a fold of rank f | r + f |
    """
    factors = {
        name: arrays[f"{module}.{name}"].astype(np.float64)
        for name in ("lora_A", "lora_B", "lora_R", "fold_A", "fold_B")
        if f"{module}.{name}" in arrays
    }
    if "lora_A" not in factors or "lora_B" not in factors:
        raise ModelError(f"{module!r} has no pair of factors", remedy="pass both factors of every module")
    left = scale * (factors["lora_B"] @ factors["lora_R"] if "lora_R" in factors else factors["lora_B"])
    if "fold_A" not in factors:
        return left, factors["lora_A"]
    return np.hstack([left, factors["fold_B"]]), np.vstack([factors["lora_A"], factors["fold_A"]])


def with_start(arrays: Arrays, shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, NDArray[np.floating]]:
    """``arrays`` and, for each module whose lora_A did not travel, that of the start, at the rank of its lora_B.

    Args:
        arrays: of one adapter; any rank.
        shapes: of the adapter in memory (its d_in counts, not its rank).
        seed: of the start.
    """
    missing = [module for module in modules(arrays) if f"{module}.lora_A" not in arrays]
    wanted = {
        f"{m}.lora_A": (arrays[f"{m}.lora_B"].shape[1], shapes[f"{m}.lora_A"][1])
        for m in missing
        if f"{m}.lora_A" in shapes
    }
    return {**arrays, **fresh_arrays(wanted, seed)}
