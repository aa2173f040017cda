"""Arrays of any size from every row, in the passes that scores take: for tasks whose answer is no single number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.tasks.passes import passes

Floats = NDArray[np.float64]
Compute = Callable[[Sequence[int]], list[Floats]]
"""The rows of a pass -> an array for each of them."""


def each_row(examples: Examples, batch: int, compute: Compute) -> list[Floats | None]:
    """``compute`` of every row; no gradient. In fixed shapes a row whose pass raises gives None, its neighbours do not.

    An array that holds a number that is not finite gives None too.
    """
    found: list[Floats | None] = [None] * len(examples)
    with torch.no_grad():
        for index, count in passes(examples, range(len(examples)), batch):
            try:
                values: Sequence[Floats | None] = compute(index)[:count]
            except Exception:
                if examples.shape is None:
                    raise
                values = [_alone(row, len(index), compute) for row in index[:count]]
            for row, value in zip(index, values, strict=False):
                found[row] = value if value is not None and np.isfinite(value).all() else None
    return found


def _alone(row: int, rows: int, compute: Compute) -> Floats | None:
    try:
        return compute([row] * rows)[0]
    except Exception:
        return None
