"""What a robust step needs to know of one adapted matrix, whichever of its factors move this round. Numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.rule import SiteFactors

Floats = NDArray[np.float64]
Pair = tuple[Floats, Floats]
Rows = tuple[slice, Floats]
"""Some rows of a matrix, and which."""


LARGEST = 1e30
"""No settled factor has an entry above this: it fits float32, and is as far from every honest site as before."""


def within(array: Floats) -> Floats:
    """The array, or as much of it as has no entry above ``LARGEST``."""
    size = float(np.abs(array).max(initial=0.0))
    return array * (LARGEST / size) if size > LARGEST else array


@dataclass(frozen=True)
class Path:
    """Squared length of a change while its factors are pulled back to the start: ``a t^2 + 2 b t^3 + c t^4``.

    t = 1 is the change as sent, 0 none. b = c = 0 where one factor moves: the product is linear in it.
    """

    a: float
    b: float = 0.0
    c: float = 0.0

    def __add__(self, other: Path) -> Path:
        return Path(self.a + other.a, self.b + other.b, self.c + other.c)

    def length(self, t: float) -> float:
        """``||D(t)||_F``; rounding below 0 is 0."""
        return float(np.sqrt(max(0.0, t * t * (self.a + t * (2 * self.b + t * self.c)))))


class Moving(Protocol):
    """One module in one round. D is s_k B_k A_k - s B A, d_out x d_in, never formed as a whole but where it says so."""

    def settled(self, site: SiteFactors) -> dict[str, NDArray[np.float32]]:
        """The arrays that stand for the site from here on, in the site's own scale; none: as they are."""

    def gram(self, sites: Sequence[SiteFactors]) -> Floats:
        """``<D_k, D_l>_F``, K x K, of settled sites."""

    def path(self, site: SiteFactors) -> Path:
        """Length of the site's own change along its way back to its own start."""

    def shrunk(self, site: SiteFactors, t: float) -> dict[str, NDArray[np.float32]]:
        """The site's arrays at t on that way, in its own scale."""

    def pair(self, site: SiteFactors) -> Pair:
        """D as left @ right."""

    def fit(self, rows: Iterable[Rows]) -> tuple[dict[str, NDArray[np.float32]], float, float]:
        """The global arrays, in the global scale, whose change comes nearest to the D given row by row.

        Returns the arrays, the squared length of D, and that of what they cannot hold.
        """
