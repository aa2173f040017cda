"""Numbers of a comparison as a reader sees them.

=====================================  ==========================================
value                                  text
=====================================  ==========================================
accuracy 0.7321 +- 0.0042              73.2 ± 0.4 (under ``accuracy, %``)
loss 2.3068 +- 0.01                    2.307 ± 0.010
forgetting 0.031 +- 0.004, accuracy    3.1 ± 0.4 (under ``forgotten (F), points``)
bytes 68,800,000                       68.8 MB (the spread only if it shows)
seconds 21.4 +- 1.2                    21.4 s
one unit                               no ±
nothing measured                       –
=====================================  ==========================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from llmchain_fl.compare.measures import MEASURES, unit_of
from llmchain_fl.compare.outcome import Outcome
from llmchain_fl.compare.spread import Difference, Spread
from llmchain_fl.report import wording

DASH = "–"
FIRST_DIGIT = 0.005
"""A spread below this share of its mean is not written beside a size in bytes."""


def heading(measure: str, metric: str, *, change: bool = False) -> str:
    """A measure's name with its unit; ``metric``: the score of the runs, here and below."""
    kind = MEASURES[measure].kind
    title = f"average {metric}" if measure == "average_accuracy" else MEASURES[measure].title
    if kind not in ("score", "difference") or unit_of(measure, metric) == "loss":
        return title
    return f"{title}, {'%' if kind == 'score' and not change else 'points'}"


def of_spread(spread: Spread, measure: str, metric: str) -> str:
    """Mean and spread of one measure, in the unit of its heading."""
    if spread.n == 0 or math.isnan(spread.mean):
        return DASH
    kind = MEASURES[measure].kind
    if kind == "bytes":
        shown = spread.sd > FIRST_DIGIT * spread.mean
        return wording.size(spread.mean) + (f" ± {wording.size(spread.sd)}" if shown else "")
    if kind == "seconds":
        return wording.duration(spread.mean)
    if kind in ("score", "difference"):
        return _plus_minus(spread, unit_of(measure, metric))
    return f"{spread.mean:.3g}" + (f" ± {spread.sd:.2g}" if spread.n > 1 else "")


def of_difference(difference: Difference, measure: str, metric: str) -> str:
    """``+1.2 ± 0.4 (3 of 3)``: in brackets, in how many pairs it is better."""
    spread = difference.spread
    if spread.n == 0:
        return DASH
    return f"{_plus_minus(spread, unit_of(measure, metric), sign='+')} ({difference.better} of {spread.n})"


def of_epsilon(outcomes: Iterable[Outcome], terms: str) -> str:
    """The highest epsilon, with its terms unless they stand for the whole table already; ``none`` without privacy."""
    spent = [outcome.epsilon for outcome in outcomes if outcome.epsilon]
    if not spent:
        return "none"
    worst = max(spent, key=lambda epsilon: epsilon.value)
    text = wording.epsilon_text(worst.value)
    return text if terms else f"{text} ({worst.terms})"


def epsilon_terms(outcomes: Iterable[Outcome]) -> str:
    """Delta, unit and accountant where they are the same everywhere; else empty."""
    terms = {outcome.epsilon.terms for outcome in outcomes if outcome.epsilon}
    return terms.pop() if len(terms) == 1 else ""


def _plus_minus(spread: Spread, unit: str, sign: str = "") -> str:
    factor, digits = (1.0, 3) if unit == "loss" else (100.0, 1)
    mean = f"{factor * spread.mean:{sign}.{digits}f}"
    mean = mean.lstrip("+-") if not mean.strip("+-0.") else mean  # no sign on a zero
    return mean + (f" ± {factor * spread.sd:.{digits}f}" if spread.n > 1 else "")
