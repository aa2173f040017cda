"""Fixed random features in front of a head: what one linear layer on them can tell apart, nobody trained.

McDonnell et al. 2023, RanPAC (arXiv 2307.02251, section 4), after random kitchen sinks (Rahimi & Recht 2008). The
projection is a public function of its seed, drawn in integers: the same bits on every machine and in every version.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.value import Array, Arrays

Matrix = npt.NDArray[np.float64]
GRAM, CROSS, COUNTS = "gram", "cross", "counts"
BLOCK = 256
"""Records whose features are in memory at once."""
_MEAN, _VARIANCE = 8 * 255 / 2, 8 * (256**2 - 1) / 12
"""Of a sum of eight bytes."""


@dataclass(frozen=True)
class RandomFeatures:
    """``count`` random features of vectors of ``width`` numbers, behind these numbers themselves. 0: none."""

    width: int
    count: int = 0
    seed: int = 1

    @property
    def size(self) -> int:
        """D = H + M."""
        return self.width + self.count

    def projection(self) -> Array:
        """P = c R, float32 [H, M]: entries of R with mean 0 and variance 1, c = sqrt(2 / M).

        R_ij is a sum of eight random bytes, centred and scaled: the fourth moment is 2.85 (normal: 3), and a sum over
        hundreds of dimensions cannot tell it from N(0, 1). With c the random part of f has a length of about 1, as the
        other part. Bytes come from the raw stream of PCG64 under SHA-256 of seed and shape.

        | case | result |
        |---|---|
        | M = 0 | [H, 0] |
        | another seed, H or M | another projection; none is a part of the other |
        """
        return _projection(self)

    def bounds(self) -> Matrix:
        """float64 [D]: ``|f_j(x)|`` is at most this for every x of length <= 1: 1, and the length of column j of P."""
        return np.concatenate([np.ones(self.width), np.linalg.norm(self.projection().astype(np.float64), axis=0)])

    def shapes(self, labels: int) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the sums over records of a list of ``labels`` (``client/closed_form.py``)."""
        size = self.size
        return {GRAM: (size * (size + 1) // 2,), CROSS: (size, labels), COUNTS: (labels,)}


@functools.lru_cache(maxsize=2)
def _projection(features: RandomFeatures) -> Array:
    shape = (features.width, features.count)
    if not features.count:
        return np.zeros(shape, dtype=np.float32)
    key = hashlib.sha256(f"{features.seed}/random features/{features.width}/{features.count}".encode()).digest()
    raw = np.random.PCG64(int.from_bytes(key[:16], "little")).random_raw(features.width * features.count)
    total = raw.astype("<u8").view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int64).reshape(shape)
    drawn: Array = ((total - _MEAN) / np.sqrt(_VARIANCE * features.count / 2)).astype(np.float32)
    drawn.flags.writeable = False
    return drawn


def lifted(x: Matrix, projection: Array) -> Matrix:
    """``f(x) = [x ; max(0, x P)]`` for the rows of ``x`` [n, H], float64 [n, H + M]."""
    return np.hstack([x, np.maximum(x @ projection.astype(np.float64), 0.0)])


def sums_of(x: Matrix, targets: npt.NDArray[np.int64], labels: int, features: RandomFeatures) -> dict[str, Matrix]:
    """``gram``, ``cross``, ``counts`` (``client/closed_form.py``) of the rows of ``x`` [n, H] with ``targets`` [n]."""
    gram, cross = np.zeros((features.size, features.size)), np.zeros((features.size, labels))
    across = features.projection()
    for start in range(0, len(x), BLOCK):
        f, which = lifted(x[start : start + BLOCK], across), targets[start : start + BLOCK]
        y = np.zeros((len(which), labels))
        y[np.arange(len(which)), which] = 1.0
        gram += f.T @ f
        cross += f.T @ y
    upper = np.concatenate([gram[row, row:] for row in range(features.size)])
    return {GRAM: upper, CROSS: cross, COUNTS: np.bincount(targets, minlength=labels).astype(np.float64)}


def features_version(base: str, arrays: Arrays, pooling: str, max_tokens: int, features: RandomFeatures) -> str:
    """Names what makes a record's features, SHA-256: sums over records add up only within one version.

    Args:
        base: digest of the base model.
        arrays: the adapter; those of a head do not count, for they come after the features.
        pooling, max_tokens: of the task.
        features: the random ones.
    """
    below = digest({name: value for name, value in arrays.items() if not name.startswith("head.")})
    told = [base, below, pooling, max_tokens, features.width, features.count, features.seed]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
