"""Numbers as a reader sees them. Nothing is computed here but the text.

=====================  =================================  ==========================
value                  function                           text
=====================  =================================  ==========================
0.8444, accuracy       score                              84.4%
2.3068, loss           score                              2.307
-0.078, accuracy       change                             -7.8 points
3.2011 (epsilon)       epsilon                            3.21 (never rounded down)
1e-05 (delta)          power                              1e-5
3,540,000              size                               3.54 MB
3725 (seconds)         duration                           1 h 2 min
NaN                    all of them                        not measured
=====================  =================================  ==========================
"""

from __future__ import annotations

import math
import re

NOT_MEASURED = "not measured"
LONGEST_NAME = 24


def score(value: float, metric: str) -> str:
    """A held-out score: accuracy (0..1) in percent, a loss with three decimals."""
    if not math.isfinite(value):
        return NOT_MEASURED
    return f"{100 * value:.1f}%" if metric == "accuracy" else f"{value:.3f}"


def change(value: float, metric: str, *, signed: bool = True) -> str:
    """A difference of two scores: percentage points for accuracy."""
    if not math.isfinite(value):
        return NOT_MEASURED
    number = 100 * value if metric == "accuracy" else value
    text = f"{number:+.{1 if metric == 'accuracy' else 3}f}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")  # no sign on a zero
    return (text if signed else text.lstrip("+")) + (" points" if metric == "accuracy" else "")


def epsilon(value: float) -> str:
    """An epsilon with two decimals, rounded up (past 1e-6): never more privacy than was computed."""
    if not math.isfinite(value):
        return "no finite bound"
    return f"{math.ceil(100 * value - 1e-4) / 100:.2f}"


def power(value: float) -> str:
    """A small number such as a delta: 1e-5, 2.5e-6."""
    return re.sub(r"e([+-])0+", r"e\1", f"{value:g}")


def guarantee(delta: float, unit: str, accountant: str) -> str:
    """What must stand beside every epsilon."""
    return f"delta {power(delta)}, unit {unit}, accountant {accountant.upper()}"


def terms(delta: float, unit: str, accountant: str) -> str:
    """The same, short enough for a sentence: ``delta 1e-5, per person, PLD``."""
    return f"delta {power(delta)}, per {unit}, {accountant.upper()}"


def size(bytes_: float) -> str:
    """A number of bytes in decimal units (1 MB = 1,000,000 bytes)."""
    if not math.isfinite(bytes_):
        return NOT_MEASURED
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(bytes_) >= step:
            number = bytes_ / step
            return f"{number:,.{0 if number >= 100 else 1 if number >= 10 else 2}f} {unit}"
    return f"{bytes_:.0f} bytes"


def duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    if not math.isfinite(seconds):
        return NOT_MEASURED
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(number: int, noun: str) -> str:
    """``1 round``, ``9 rounds``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def short(name: str) -> str:
    """A name that fits beside a line in a plot."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
