"""Numbers as a reader sees them. Nothing is computed here but the text.

=====================  =================================  ==========================
value                  function                           text
=====================  =================================  ==========================
0.8444, share          score                              84.4%
2.3068, nats           score                              2.307
-0.078, share          change                             -7.8 points
3.2011 (epsilon)       epsilon_text                       3.21 (never rounded down)
1e-05 (delta)          power                              1e-5
3,540,000              size                               3.54 MB
3725 (seconds)         duration                           1 h 2 min
NaN                    all of them                        not measured
=====================  =================================  ==========================
"""

from __future__ import annotations

import math
import re

from llmchain_fl.report.noised import noise_words

NOT_MEASURED = "not measured"
SHARE = "share"
"""The unit of scores that are means of values from 0 to 1; they are written in percent."""
LONGEST_NAME = 24


def score(value: float, unit: str) -> str:
    """A score in the unit its rows declare: a share (0..1) in percent, anything else with three decimals."""
    if not math.isfinite(value):
        return NOT_MEASURED
    return f"{100 * value:.1f}%" if unit == SHARE else f"{value:.3f}"


def change(value: float, unit: str, *, signed: bool = True) -> str:
    """A difference of two scores: percentage points for shares."""
    if not math.isfinite(value):
        return NOT_MEASURED
    number = 100 * value if unit == SHARE else value
    text = f"{number:+.{1 if unit == SHARE else 3}f}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")  # no sign on a zero
    return (text if signed else text.lstrip("+")) + (" points" if unit == SHARE else "")


def epsilon_text(value: float, terms: str = "") -> str:
    """Round an epsilon up to two decimals (past 1e-6), with its terms: the only place that writes an epsilon spent.

    Args:
        value: the epsilon; not finite: no bound is known.
        terms: of :func:`guarantee`; empty only where a caption or heading beside it states them.
    """
    text = f"{math.ceil(100 * value - 1e-4) / 100:.2f}" if math.isfinite(value) else "no finite bound"
    return f"{text} ({terms})" if terms else text


def power(value: float) -> str:
    """A small number such as a delta: 1e-5, 2.5e-6."""
    return re.sub(r"e([+-])0+", r"e\1", f"{value:g}")


def guarantee(delta: float, unit: str, accountant: str, noise: str = "") -> str:
    """What must stand beside every epsilon: ``delta 1e-5, per person, PLD accountant, noise added at each site``.

    ``noise``: a value of ``noised.py``; "" in runs of earlier versions.
    """
    return f"delta {power(delta)}, per {unit}, {accountant.upper()} accountant, {noise_words(noise, unit).short}"


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
