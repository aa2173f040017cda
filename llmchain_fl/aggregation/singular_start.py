"""PiSSA: the adapter starts from the largest singular directions of the base (Meng et al. 2024, arXiv 2404.02948)."""

from __future__ import annotations

import numpy as np

from llmchain_fl.aggregation.factors import FOLD_A, FOLD_B, LORA_A, LORA_B, Adapter, Arrays, modules
from llmchain_fl.aggregation.rule import WeightOf


def singular_start(arrays: Arrays, scale: float, weight_of: WeightOf) -> Adapter:
    """``W0 = U S V^T``;  ``B = U_r (S_r / s)^1/2``,  ``A = (S_r / s)^1/2 V_r^T``,  fold = - s B A:  Delta W = 0.

    What is trained is the part of W0 that it is largest in; the fold takes that part out of the base, so the base stays
    as it is and the saved adapter is a plain pair of rank 2 r (``factors.serving``). The SVD is the server's alone and
    what comes of it travels, so that all sites start from the same bits. Each row of A has a positive largest entry.

    Args:
        arrays: a fresh adapter, d_out x r and r x d_in for each module.
        scale: s = alpha / r.
        weight_of: module -> W0 [d_out, d_in].

    | module | result |
    |---|---|
    | rank at most min(d_out, d_in) | as above |
    | more | the rest of the rows stay the fresh ones, their columns of B zero |
    | a head | not changed |
    """
    start: Adapter = {name: np.array(array, dtype=np.float32) for name, array in arrays.items()}
    for module in modules(arrays):
        left, size, right = np.linalg.svd(np.asarray(weight_of(module), dtype=np.float64), full_matrices=False)
        rank = min(start[f"{module}.{LORA_B}"].shape[1], len(size))
        signs = np.sign(right[np.arange(rank), np.abs(right[:rank]).argmax(axis=1)])
        root = np.sqrt(size[:rank] / scale) * signs
        start[f"{module}.{LORA_B}"][:, :rank] = left[:, :rank] * root
        start[f"{module}.{LORA_A}"][:rank] = root[:, None] * right[:rank]
        start[f"{module}.{FOLD_B}"] = (-scale * start[f"{module}.{LORA_B}"]).astype(np.float32)
        start[f"{module}.{FOLD_A}"] = start[f"{module}.{LORA_A}"].copy()
    return start
