"""Which records go through the model together, and in which shape.

Two ways to batch, and why there are two:

* **by length**, padded to the longest of the batch: the cheapest. A record's numbers then depend on its neighbours:
  they decide how far it is padded, and a model that lets padding through (or that is made to, by arrays that overflow
  there) lets a neighbour decide about a record. Fit for public records and for training without privacy.
* **in fixed shapes** (:class:`Shape`): a record is padded to a length that follows from its own (:func:`rung`), and
  goes through in a batch of a constant number of rows beside records of the same kind; missing rows are copies of the
  batch's first record, whose results are dropped. The shape of every pass a record takes part in is a function of this
  record and of public constants. Rows of a batch never meet inside a model of this project (the private step refuses
  one in which they do), so the row's result is the same, bit for bit, wherever it stands and whatever stands beside
  it; ``client/steady.py`` checks that of the very model and machine, and falls back to one row a pass. Where it found
  that passes of fewer rows give the same bits too (``Shape.fewest``), fewer rows are filled up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Kind = tuple[int, bool]
EVEN = 64
"""Up to this length, rungs are STEP apart, above it an eighth of the next power of two."""
STEP = 8


class Lengths(Protocol):
    """What must be known of records to put them into passes."""

    @property
    def shape(self) -> Shape | None: ...
    def __len__(self) -> int: ...
    def length(self, i: int) -> int: ...


@dataclass(frozen=True)
class Shape:
    """``rows`` records a pass; no record is padded beyond ``longest`` tokens.

    ``fewest``: (kind, n): passes of n to ``rows`` rows of this kind give a record the same bits; others have ``rows``.
    """

    rows: int
    longest: int
    fewest: tuple[tuple[Kind, int], ...] = ()

    def padded(self, length: int) -> int:
        """Length to which a record of ``length`` tokens is padded."""
        return rung(length, self.longest)

    def kind(self, length: int) -> Kind:
        """(that length, whether the record fills it): only records of one kind stand in one pass.

        Where nothing is padded many models leave the mask out, which is another computation: arrays that make the
        queries NaN leave such a pass finite and spoil one with a mask. A padded neighbour must not decide about that.
        Only records of ``longest`` tokens fill their length (:func:`rung`).
        """
        return self.padded(length), self.padded(length) == length


def rung(length: int, longest: int) -> int:
    """The length to which a record is padded, a function of its own: longer than the record wherever that can be.

    ==========================  =============================================
    length                      result
    ==========================  =============================================
    1 to 63                     the next multiple of 8 above it
    64 to 127, 128 to 255, ...  the next multiple of 16, of 32, ... above it
    ``longest`` or more         itself (a longer record is not made here)
    any other                   at most ``longest``
    ==========================  =============================================
    """
    step = STEP if length < EVEN else 1 << (int(length).bit_length() - 3)
    return max(length, min(longest, (length // step + 1) * step))


def passes(examples: Lengths, index: Sequence[int], batch: int) -> Iterator[tuple[list[int], int]]:
    """(records of a pass, how many of them count); the others fill the shape up.

    Without a shape: at most ``batch`` records of like length, all of which count. With one: exactly ``shape.rows``
    records of one kind; kinds ascending, and within one in the order of ``index``, so that the passes of some of the
    records come in the same order whatever the others are.
    """
    shape = examples.shape
    if shape is None:
        order = sorted(index, key=examples.length)
        for start in range(0, len(order), batch):
            part = [int(i) for i in order[start : start + batch]]
            yield part, len(part)
        return
    kinds: dict[Kind, list[int]] = {}
    fewest = dict(shape.fewest)
    for i in index:
        kinds.setdefault(shape.kind(examples.length(int(i))), []).append(int(i))
    for kind in sorted(kinds):
        for start in range(0, len(kinds[kind]), shape.rows):
            part = kinds[kind][start : start + shape.rows]
            yield part + part[:1] * (fewest.get(kind, shape.rows) - len(part)), len(part)


Compute = Callable[[Sequence[int]], tuple[Tensor, ...]]
"""The records of a pass -> k numbers for each of them, as k tensors [n]."""


def each_record(examples: Lengths, batch: int, compute: Compute, numbers: int = 1) -> npt.NDArray[np.float64]:
    """``compute`` of every record, float64 [numbers, N]; no gradient.

    In fixed shapes a record whose pass raises counts as NaN, and its neighbours are computed without it.
    """
    found = np.full((numbers, len(examples)), np.nan)
    with torch.no_grad():
        for index, count in passes(examples, range(len(examples)), batch):
            try:
                found[:, index[:count]] = _plain(compute(index))[:, :count]
            except Exception:
                if examples.shape is None:
                    raise
                for record in index[:count]:
                    found[:, record] = _alone(record, len(index), compute)
    return found


def _alone(record: int, rows: int, compute: Compute) -> npt.NDArray[np.float64]:
    try:
        return _plain(compute([record] * rows))[:, 0]
    except Exception:
        return np.asarray(np.nan)


def _plain(values: tuple[Tensor, ...]) -> npt.NDArray[np.float64]:
    return np.stack([value.double().cpu().numpy() for value in values])
