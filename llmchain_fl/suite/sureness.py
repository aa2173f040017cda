"""How sure a classifier is, and what it could leave unanswered. Numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.promote.bootstrap import miscalibration

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]
TEMPERATURES = np.exp(np.linspace(np.log(0.2), np.log(5.0), 81))
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)


def brier(logs: Floats, targets: Positions) -> float:
    """Mean over records of sum_l (p_l - [l is right])^2 (Brier 1950), 0 to 2. ``logs``: log p [n, L]."""
    chances = np.exp(logs)
    chances[np.arange(len(targets)), targets] -= 1
    return float(np.square(chances).sum(axis=1).mean())


def tempered(logs: Floats, temperature: float) -> Floats:
    """log softmax(log p / T)."""
    scaled = logs / temperature
    return np.asarray(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))


def fitted_temperature(logs: Floats, targets: Positions) -> float:
    """The T of ``TEMPERATURES`` with the least mean -log p of the right label (Guo et al. 2017).

    | case | T |
    |---|---|
    | sure and wrong now and then | above 1 |
    | always right | the smallest |
    """
    losses = [-tempered(logs, t)[np.arange(len(targets)), targets].mean() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def risk_coverage(sure: Floats, right: Floats) -> tuple[dict[float, float], float]:
    """(coverage -> share of wrong answers among the surest, mean risk over all coverages) (Geifman and El-Yaniv 2017).

    risk(k) = share of wrong ones among the k surest; AURC = mean over k = 1 .. n of risk(k). ``sure``, ``right``: [n].
    """
    order = np.argsort(-sure, kind="stable")
    risks = np.cumsum(1 - right[order]) / np.arange(1, len(right) + 1)
    shares = {share: float(risks[max(1, round(share * len(risks))) - 1]) for share in COVERAGES}
    return shares, float(risks.mean())


def sureness(logs: Floats, targets: Positions) -> dict[str, Any]:
    """Calibration and abstention of one classifier; the temperature is fitted on every second record."""
    sure, right = np.exp(logs.max(axis=1)), (logs.argmax(axis=1) == targets).astype(np.float64)
    temperature = fitted_temperature(logs[::2], targets[::2])
    other = tempered(logs[1::2], temperature)
    risks, area = risk_coverage(sure, right)
    return {
        "ece": float(miscalibration(sure, right)),
        "brier": brier(logs, targets),
        "temperature": temperature,
        "ece_tempered": float(miscalibration(np.exp(other.max(axis=1)), right[1::2])),
        "risk_at_coverage": {f"{share:g}": risk for share, risk in risks.items()},
        "aurc": area,
        "records": len(targets),
    }
