"""A closed-form classifier on frozen features: what records teach without any training of the model. Numpy only.

The head of ``train.method = "closed-form"`` (``aggregation/ridge.py``), from records instead of sums: ridge regression
on the base's vector of a record and fixed random features of it, with the label texts to start from. It stands in for
"all records in one place" and "each site alone", which as LoRA runs would cost as much as the federation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.closed_form import Sums, parts, solved
from llmchain_fl.aggregation.ridge import Head, Matrix, Moments, fitted, from_records
from llmchain_fl.core.tasks.random_features import RandomFeatures, lifted, sums_of


@dataclass(frozen=True)
class Ridge:
    """A head over vectors of the base."""

    head: Head
    random: RandomFeatures

    def scores(self, vectors: Matrix) -> Matrix:
        """``vectors`` [n, H] -> [n, L]."""
        return self.head.scores(lifted(vectors, self.random.projection()))

    def answers(self, vectors: Matrix, candidates: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Best label of each row of ``vectors`` [n, H], among ``candidates`` (positions; None: all); int64 [n]."""
        scores = self.scores(vectors)
        if candidates is None:
            return np.asarray(scores.argmax(axis=1), dtype=np.int64)
        return np.asarray(candidates[scores[:, candidates].argmax(axis=1)], dtype=np.int64)


def fit(vectors: Matrix, labels: NDArray[np.int64], count: int, random: int = 0, texts: Matrix | None = None) -> Ridge:
    """The head of these records; formula, choice of penalty and edge cases: ``aggregation/ridge.py``, ``fitted``.

    Args:
        vectors: x, [n, H], n >= 1, of length at most 1.
        labels: position of each record's label, int64 [n].
        count: number of labels, L.
        random: number of random features beside x.
        texts: label vectors [L, H], or None.

    | case | result |
    |---|---|
    | n < D | from the n x n matrix of the records: the same head, sooner |
    | no record | ValueError |
    """
    if not len(vectors):
        raise ValueError("no record to fit")
    features = RandomFeatures(vectors.shape[1], random)
    if len(vectors) >= features.size:
        total = Sums(features, count, version="")
        total.add(sums_of(vectors, labels, count, features), version="")
        return Ridge(solved(total, texts), features)
    f, y = lifted(vectors, features.projection()), np.zeros((len(labels), count))
    y[np.arange(len(labels)), labels] = 1.0
    mean = f.mean(axis=0)
    views = [from_records(name, part, f - mean, y - y.mean(axis=0)) for name, part in parts(features).items()]
    return Ridge(fitted(Moments(views, y.sum(axis=0), mean, features.width), texts), features)
