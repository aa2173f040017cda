"""``top-k``: the k largest numbers of an array by size, their positions, and nothing of the rest.

Stich et al. 2018, arXiv 1809.07599: with k = ceil(share n), so at least 1,

    ||x - top(x)||^2 <= (1 - k / n) ||x||^2                    (contraction; equality where all sizes are equal)

The kept values travel as ``int4`` (its bound: w), positions as in ``elias_fano.py``: at a share of 0.05 and blocks of
64 that is 0.53 bits for each number of the array instead of 32. The largest numbers of an array are much of one size,
so finer steps for them buy little. In expectation over the draws

    E||x - decode(x)||^2 <= ||x - top(x)||^2 + w ||top(x)||^2 <= (1 - (1 - w) k / n) ||x||^2

Biased: what is small is left out each time. Use it with error feedback, which adds it up until it is large, and only
under rules whose factors keep their coordinates (``budget.py`` refuses the rest).

k is a public constant, also where fewer numbers are not zero: the length of the message says nothing.

| case | outcome |
|---|---|
| several numbers of the same size at the edge | the first of them: the same on every machine |
| fewer than k numbers are not zero | zeros are sent for the rest |
| share 1, or an array of one number | all are kept |
| an array of no numbers | no bytes |
"""

from __future__ import annotations

import math

import numpy as np

from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.compression.codec import Blob, Draw, Flat
from llmchain_fl.core.compression.elias_fano import Positions, positions_size, read_positions, write_positions
from llmchain_fl.core.compression.quantise import INT4, Quantise


def kept(n: int, spec: CodecSpec) -> int:
    """k: how many of n numbers are sent."""
    return math.ceil(spec.share * n)


def largest(x: Flat, k: int) -> Positions:
    """Positions of the k largest sizes, ascending; of equal ones the first."""
    if k >= x.size:
        return np.arange(x.size)
    sizes = np.abs(x)
    edge = np.partition(sizes, x.size - k)[x.size - k]
    above = np.flatnonzero(sizes > edge)
    equal = np.flatnonzero(sizes == edge)[: k - above.size]
    return np.sort(np.concatenate([above, equal]))


class TopK:
    """See the module."""

    unbiased = False
    values: Quantise = INT4

    def size(self, n: int, spec: CodecSpec) -> int:
        """Positions, then values."""
        k = kept(n, spec)
        return positions_size(n, k) + self.values.size(k, spec)

    def encode(self, x: Flat, spec: CodecSpec, draw: Draw) -> Blob:
        """k uniforms are drawn."""
        positions = largest(x, kept(x.size, spec))
        return np.concatenate([write_positions(positions, x.size), self.values.encode(x[positions], spec, draw)])

    def decode(self, blob: Blob, n: int, spec: CodecSpec, who: str) -> Flat:
        """Zeros but for the kept values."""
        k = kept(n, spec)
        cut = positions_size(n, k)
        x = np.zeros(n, dtype=np.float32)
        x[read_positions(blob[:cut], n, k, who)] = self.values.decode(blob[cut:], k, spec, who)
        return x

    def error(self, n: int, spec: CodecSpec) -> float:
        """1 - (1 - w) k / n, w of the values' codec."""
        k = kept(n, spec)
        return 1 - (1 - self.values.error(k, spec)) * k / n if n else 0.0


TOP_K = TopK()
