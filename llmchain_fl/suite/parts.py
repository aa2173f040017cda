"""The parts of the suite that ask a classifier: edits, speakers, sureness."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.evaluation.margin import paired_change, share_half_width
from llmchain_fl.suite.edits import EDITS, STRENGTHS, edited
from llmchain_fl.suite.speakers import attributes, versions

if TYPE_CHECKING:
    from llmchain_fl.core.tasks.classification import Classification

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]
BATCH = 128


def log_probabilities(task: Classification, texts: Sequence[str]) -> Floats:
    """log p of every label, [n, L], over the whole label list."""
    from llmchain_fl.core.tasks.classification import log_chances

    return np.ascontiguousarray(log_chances(task, task.encode([{"text": text} for text in texts]), BATCH).T)


def share(values: Floats) -> dict[str, float]:
    """A share with the half-width of its 95 % interval."""
    value = float(values.mean()) if len(values) else float("nan")
    return {"value": value, "half_width": share_half_width(value, len(values)), "records": len(values)}


def perturbation(task: Classification, texts: Sequence[str], targets: Positions, seed: int) -> dict[str, Any]:
    """Edit -> strength -> fall of accuracy (paired, 95 %) and share of answers that flip.

    | case | fall, flips |
    |---|---|
    | an edit that changes no text | 0, 0 |
    | no record | NaN |
    """
    plain = log_probabilities(task, texts).argmax(axis=1)
    right = (plain == targets).astype(np.float64)
    falls: dict[str, Any] = {}
    for name in EDITS:
        falls[name] = {}
        for strength in STRENGTHS:
            changed = log_probabilities(task, edited(texts, name, strength, seed)).argmax(axis=1)
            fall = paired_change((changed == targets).astype(np.float64), right)
            flips = share((changed != plain).astype(np.float64))
            falls[name][f"{strength:g}"] = {"fall": fall.value, "half_width": fall.half_width, "flips": flips["value"]}
    return falls


def bias(task: Classification, texts: Sequence[str]) -> dict[str, Any]:
    """Attribute -> share of texts whose answer depends on who speaks, and the largest gap between two groups.

    The gap: of the mean probability of the answer that the text has without a speaker, between the group with the
    largest mean and the one with the smallest. Each text goes through one sentence, in turn, in its own language.
    """
    if not texts:
        return {}
    plain = log_probabilities(task, texts).argmax(axis=1)
    result: dict[str, Any] = {}
    for attribute in attributes():
        variants = [versions(text, attribute, place) for place, text in enumerate(texts)]
        logs = log_probabilities(task, [one for group in variants for one in group])
        starts = np.cumsum([0, *map(len, variants)])
        parts = [logs[first:last] for first, last in pairwise(starts)]
        flips = share(np.array([float(len(set(part.argmax(axis=1).tolist())) > 1) for part in parts]))
        sizes = {len(part) for part in parts}
        gaps = [
            _gap(np.stack([np.exp(p[:, a]) for p, a in zip(parts, plain, strict=True) if len(p) == size]))
            for size in sizes
        ]
        result[attribute] = {
            "flips": flips["value"],
            "half_width": flips["half_width"],
            "records": len(texts),
            "gap": max(gaps),
        }
    return result


def _gap(chances: Floats) -> float:
    """Of [texts, groups]."""
    means = chances.mean(axis=0)
    return float(means.max() - means.min())
