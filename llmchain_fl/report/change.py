"""A change of a score between two moments, and whether chance can make it: the only place that says "better".

    h = 1.96 sqrt(q (1 - q) / (n + 2)),   q = (n p + 1) / (n + 2)             half-width of a share p over n records
    margin of a difference = sqrt(h_old^2 + h_new^2)

Source: Agresti and Caffo 2000, The American Statistician 54 (one success and one failure are added to each sample, so
that p = 1 has a margin too). Both scores come from the same n records, which would allow a sharper test; without the
single answers this one errs towards "cannot be told apart". A row that brings its own ``half_width`` is believed.
The mean of k scores over different records has the half-width sqrt(sum h^2) / k.

===================================  ====================================================================
case                                 what is said
===================================  ====================================================================
change larger than its margin        better or worse: it is called clear
change within its margin             within chance of the reference
a half-width is not known            the numbers, "margin not known"; never clear
a score was not measured             not measured; never clear
===================================  ====================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.report import wording

Z = 1.96
"""Quantile of 95 % of a normal draw, both sides."""


@dataclass(frozen=True)
class Measured:
    """A score with the half-width of its 95 % interval; NaN where not measured or not known."""

    value: float
    half: float = math.nan

    @property
    def there(self) -> bool:
        """Whether it was measured."""
        return math.isfinite(self.value)

    def text(self, unit: str) -> str:
        """``89.5% ± 5.0``; without the half-width where it is not known."""
        if not self.there or not math.isfinite(self.half):
            return wording.score(self.value, unit)
        return f"{wording.score(self.value, unit)} ± {_amount(self.half, unit)}"


NOTHING = Measured(math.nan)


def half_width(share: float, n: float) -> float:
    """Half-width of the 95 % interval of a share over n records, by the formula above; NaN for n = 0."""
    if not (n > 0 and 0 <= share <= 1):
        return math.nan
    q = (n * share + 1) / (n + 2)
    return Z * math.sqrt(q * (1 - q) / (n + 2))


def mean(scores: Sequence[Measured]) -> Measured:
    """The mean of scores over different records; not measured where one of them is not, or there is none."""
    if not scores:
        return NOTHING
    half = math.sqrt(math.fsum(score.half**2 for score in scores)) / len(scores)
    return Measured(fmean(score.value for score in scores), half)


@dataclass(frozen=True)
class Change:
    """From ``old`` to ``new`` in one score."""

    old: Measured
    new: Measured
    metric: Metric

    @property
    def gain(self) -> float:
        """How much better; negative: worse; NaN where not measured."""
        return self.metric.gain(self.old.value, self.new.value)

    @property
    def margin(self) -> float:
        """What chance can make; NaN where not known."""
        return math.hypot(self.old.half, self.new.half)

    @property
    def clear(self) -> int:
        """1: better, -1: worse, 0: within the margin, or not known."""
        return int(math.copysign(1, self.gain)) if abs(self.gain) > self.margin else 0

    def than(self, reference: str) -> str:
        """The change in words: ``23.0 points better than untrained (66.5%, margin 8.9)``.

        Args:
            reference: what ``old`` is, as it stands after "than".
        """
        unit = self.metric.unit
        if not math.isfinite(self.gain):
            return f"compared with {reference}: not measured"
        was, amount = wording.score(self.old.value, unit), wording.change(abs(self.gain), unit, signed=False)
        better = "better" if self.gain > 0 else "worse"
        if not math.isfinite(self.margin):
            moved = f"{amount} {better} than" if self.gain else "the same as"
            return f"{moved} {reference} ({was}, margin not known)"
        margin = f"margin {_amount(self.margin, unit)}"
        if self.clear:
            return f"{amount} {better} than {reference} ({was}, {margin})"
        signed = wording.change(self.gain, unit)
        return f"within chance of {reference} ({was}, change {signed}, {margin})"


def _amount(value: float, unit: str) -> str:
    return wording.change(abs(value), unit, signed=False).removesuffix(" points")
