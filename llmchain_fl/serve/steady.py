"""How many rows a pass may have so that a row's numbers are the same, bit for bit, alone and in any company.

Rows never meet in the mathematics, and each is padded to a length that follows from its own (``core/tasks/passes.py``).
But a kernel may round a row by the number of rows or by its place. So before anything is served the very passes are
tried on made-up rows, each kind of length by itself:

    row in a full pass  =  the same row turned by some places, among copies of itself, in passes of c rows

A number of rows c with the same bits as a full pass is used, missing rows being copies; others are not. Where turning
changes bits, each row of this kind is computed alone. The trial is of this model, this machine, this number of threads.

=================================  =====================================
found                              passes of this kind have
=================================  =====================================
all alike                          1, 2, 4, ... up to the most rows
small passes round otherwise       the larger numbers only
places round otherwise             one row
=================================  =====================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Compute = Callable[[Sequence[int]], Tensor]
"""Numbers of made-up rows -> a result of each, [n, ...]."""


def sizes_up_to(most: int) -> list[int]:
    """1, 2, 4, ... and ``most`` itself."""
    return sorted({most, *(2**k for k in range(most.bit_length()) if 2**k <= most)})


def steady_sizes(compute: Compute, most: int) -> tuple[int, ...]:
    """Numbers of rows whose passes give a row the same bits, ascending; never empty.

    Args:
        compute: over ``most`` made-up rows of one kind.
        most: rows of a full pass.
    """
    every = list(range(most))
    full = compute(every)
    turned = [(row + 1 + most // 2) % most for row in every]
    copies = compute([0] * most)
    alike = _same(compute(turned), full[turned]) and all(_same(row, full[0]) for row in copies)
    if not alike:
        return (1,)
    return tuple(size for size in sizes_up_to(most) if size == most or _agrees(compute, full, size))


def _agrees(compute: Compute, full: Tensor, size: int) -> bool:
    starts = range(0, len(full) - size + 1, size)
    return all(_same(compute(range(start, start + size)), full[start : start + size]) for start in starts)


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(7.0, 8.0, 9.0), other.nan_to_num(7.0, 8.0, 9.0))


def filled(rows: int, sizes: Sequence[int]) -> int:
    """The smallest of ``sizes`` that holds ``rows`` rows, or the largest."""
    return next((size for size in sizes if size >= rows), sizes[-1])
