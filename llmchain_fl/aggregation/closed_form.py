"""Heads in closed form at the server: sums of the sites that add up, and the head that they decide. Numpy only.

    G = sum f f^T      B = sum f y^T      c = sum y           over all records of all sites, y one-hot

give the ridge head of all records in one place (``ridge.py``; ``m = B 1 / n``, ``Gc = G - n m m^T``,
``Bc = B - m c^T``), for any split over sites, rounds and stages and any order of them: nothing is forgotten, nothing
drifts (McDonnell et al. 2023, arXiv 2307.02251, algorithm 1). Sums belong to one version of the features: whatever
moves them (another base, an adapter that was trained on) makes all sums before it worthless.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.admission import refuse
from llmchain_fl.aggregation.ridge import SEEN, Head, Matrix, Moments, fitted, from_gram, without_records
from llmchain_fl.core.errors import RunError
from llmchain_fl.core.tasks.random_features import COUNTS, CROSS, GRAM, RandomFeatures


class Sums:
    """What has come from sites so far, of one version of the features.

    | case | outcome |
    |---|---|
    | sums of another version of the features | AdmissionError foreign-factor |
    | a name or shape that was not asked for, NaN, infinity | AdmissionError with that reason |
    | a site without a record | zeros: nothing changes |
    | a refusal | nothing was counted |

    A site that lies is not found out: its sums are of records that nobody else sees.
    """

    def __init__(self, features: RandomFeatures, labels: int, version: str) -> None:
        self.features, self.labels, self.version = features, labels, version
        self._sums = {name: np.zeros(shape) for name, shape in features.shapes(labels).items()}

    @property
    def records(self) -> float:
        """n: how many records were counted."""
        return float(self._sums[COUNTS].sum())

    def add(self, sums: Mapping[str, NDArray[np.floating]], version: str) -> None:
        """Count the sums of a site (or of many) in.

        Raises:
            AdmissionError: see the table.
        """
        if version != self.version:
            message = "sums of another version of the features: they do not add up with those so far"
            raise refuse("foreign-factor", message, remedy="compute them anew with the adapter that is served now")
        for name, known in self._sums.items():
            if name not in sums:
                raise refuse("missing-name", f"no {name!r} among the sums", remedy=_SAME)
            if sums[name].shape != known.shape:
                message = f"{name!r} has shape {sums[name].shape}; {known.shape} was asked for"
                raise refuse("wrong-shape", message, remedy=_SAME)
            if not np.isfinite(sums[name]).all():
                raise refuse("not-finite", f"{name!r} has NaN or infinity in it", remedy=_SAME)
        if len(sums) > len(self._sums):
            raise refuse("extra-name", f"{len(sums)} arrays; {len(self._sums)} were asked for", remedy=_SAME)
        for name, known in self._sums.items():
            known += sums[name]

    def widened(self, labels: int) -> Sums:
        """The same sums for a longer label list, whose new labels are at its end and have no record yet."""
        wide = Sums(self.features, labels, self.version)
        for name, known in self._sums.items():
            wide._sums[name][tuple(slice(size) for size in known.shape)] = known
        return wide

    def state(self) -> dict[str, Any]:
        """What must survive a restart."""
        return {"version": self.version, **{name: known.copy() for name, known in self._sums.items()}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            RunError: it is of other features or of another label list.
        """
        alike = all(name in state and state[name].shape == known.shape for name, known in self._sums.items())
        if state.get("version") != self.version or not alike:
            message = "the sums so far are of another version of the features, or of another label list"
            raise RunError(message, remedy="go on with the adapter and labels that they were made with, or begin anew")
        self._sums = {name: np.array(state[name], dtype=np.float64) for name in self._sums}

    def moments(self) -> Moments:
        """Means, and every choice of features along the directions of its own centred G."""
        counts, cross = self._sums[COUNTS], self._sums[CROSS]
        n = max(self.records, 1.0)
        mean = cross.sum(axis=1) / n
        gram = symmetric(self._sums[GRAM], self.features.size) - n * np.outer(mean, mean)
        centred = cross - np.outer(mean, counts)
        views = [from_gram(name, part, gram, centred) for name, part in parts(self.features).items()]
        return Moments(views, counts, mean, self.features.width)


_SAME = "run the same version, the same label list and the same features on the site as on the server"


def parts(features: RandomFeatures) -> dict[str, slice]:
    """The choices of features: x alone, and all. (The random ones alone were no better than all on any set tried.)"""
    both = {"x and random": slice(None)} if features.count else {}
    return {"x": slice(features.width), **both}


def solved(sums: Sums, texts: Matrix | None = None) -> Head:
    """The head of all records that ``sums`` hold; see :func:`llmchain_fl.aggregation.ridge.fitted`."""
    if sums.records < SEEN:
        return without_records(sums.labels, sums.features.size, texts)
    return fitted(sums.moments(), texts)


def symmetric(upper: NDArray[np.floating], size: int) -> Matrix:
    """The packed upper triangle, row by row, as the whole matrix [D, D]."""
    whole, start = np.zeros((size, size)), 0
    for row in range(size):
        whole[row, row:] = whole[row:, row] = upper[start : start + size - row]
        start += size - row
    return whole
