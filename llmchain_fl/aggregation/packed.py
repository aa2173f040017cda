"""Many small arrays as one vector, and the streaming mean of such vectors. Numpy and scipy only.

An adapter is hundreds of arrays of a few thousand numbers. A call of numpy for each of them costs more than its numbers
do, so they are laid side by side once, and what is done to them is done to the one vector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dgemv

ROWS = 4
"""Replies that are copied before they are summed: one pass over the mean serves all of them."""
COLUMNS = 32_768
"""Numbers of a reply handled at once, so that no temporary is as large as a reply."""

Vector = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]
Number = TypeVar("Number", bound=np.floating)


class Packing:
    """Where each array lies in the vector, in the order of ``shapes``.

    | arrays | vector |
    |---|---|
    | none | of length 0 |
    | of any strides, float16 to float64 | their numbers in C order, as float32 |
    """

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = dict(shapes)
        self.size = 0
        self._places: dict[str, slice] = {}
        for name, shape in self.shapes.items():
            self._places[name] = slice(self.size, self.size + math.prod(shape))
            self.size += math.prod(shape)

    def fill(self, vector: Vector, arrays: Mapping[str, NDArray[np.floating]]) -> None:
        """Copy the arrays, each of which has its shape, into ``vector``."""
        if self.size:
            parts = [arrays[name].reshape(-1) for name in self.shapes]
            with np.errstate(over="ignore"):  # infinity is looked for afterwards
                np.concatenate(parts, out=vector, casting="same_kind")

    def view(self, vector: NDArray[Number], name: str) -> NDArray[Number]:
        """One array, not copied."""
        return vector[self._places[name]].reshape(self.shapes[name])


class RunningMean:
    """Streaming ``sum_k w_k x_k / sum_k w_k`` of vectors in float64; the first ``scaled`` numbers of x_k times a ratio.

    Replies wait as float32 until there are ``ROWS`` of them, then W <- W + sum w_k and

        mean <- (W_old / W) mean + sum_k (w_k / W) x_k        (West 1979, ROWS at once: a matrix times a vector)

    No number leaves the range of the x_k, however large a weight is. The order shows in the last digits of float64.

    | rows | value |
    |---|---|
    | none | 0 |
    | one, or equal ones, of ratio 1 | theirs, bit for bit once it is rounded to float32 |
    | a row that was filled and not counted | nothing of it |
    """

    def __init__(self, size: int, scaled: int = 0) -> None:
        self._mean, self._scaled = np.zeros(size), scaled
        self._rows = np.empty((ROWS, size), dtype=np.float32)
        self._waiting: list[tuple[float, float]] = []
        self._total = 0.0

    @property
    def row(self) -> Vector:
        """The vector to fill next; what stands in it counts with the next :meth:`count`."""
        free: Vector = self._rows[len(self._waiting)]
        return free

    def count(self, weight: float, ratio: float = 1.0) -> None:
        """Count ``row`` in. The sum of the weights must be finite, and ``ratio`` times the first numbers too."""
        self._waiting.append((weight, ratio))
        if len(self._waiting) == ROWS:
            self._sum()

    def value(self) -> NDArray[np.float64]:
        """The mean so far; not for writing."""
        if self._waiting:
            self._sum()
        return self._mean

    def _sum(self) -> None:
        total = self._total + sum(weight for weight, _ in self._waiting)
        shares = np.array([weight / total for weight, _ in self._waiting])
        scaled = shares * [ratio for _, ratio in self._waiting]
        self._blend(slice(0, self._scaled), scaled, self._total / total)
        self._blend(slice(self._scaled, len(self._mean)), shares, self._total / total)
        self._total = total
        self._waiting.clear()

    def _blend(self, where: slice, shares: NDArray[np.float64], rest: float) -> None:
        """``mean <- rest mean + shares rows`` in place; no temporary is as large as a row."""
        wide = np.empty(len(shares) * min(COLUMNS, where.stop - where.start))
        for start in range(where.start, where.stop, COLUMNS):
            part = self._mean[start : min(start + COLUMNS, where.stop)]
            block = wide[: len(shares) * len(part)].reshape(len(shares), -1)
            block[...] = self._rows[: len(shares), start : start + len(part)]
            dgemv(1.0, block.T, shares, beta=rest, y=part, overwrite_y=1)
