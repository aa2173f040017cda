"""A change of a score between two moments, and whether chance can make it: the only place that says "better".

    margin of a difference = sqrt(h_old^2 + h_new^2)

h: half-widths of the 95 % intervals (``evaluation/margin.py``), as for two draws of records; where the run has compared
the same records one by one, that margin, which is smaller, is taken. The mean of k scores over different records has
the half-width sqrt(sum h^2) / k.

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


def mean(scores: Sequence[Measured]) -> Measured:
    """The mean of scores over different records; not measured where one of them is not, or there is none."""
    if not scores:
        return NOTHING
    half = math.sqrt(math.fsum(score.half**2 for score in scores)) / len(scores)
    return Measured(fmean(score.value for score in scores), half)


@dataclass(frozen=True)
class Change:
    """From ``old`` to ``new`` in one score; ``paired``: its margin where the same records were compared one by one."""

    old: Measured
    new: Measured
    metric: Metric
    paired: float = math.nan

    @property
    def gain(self) -> float:
        """How much better; negative: worse; NaN where not measured."""
        return self.metric.gain(self.old.value, self.new.value)

    @property
    def margin(self) -> float:
        """What chance can make; NaN where not known."""
        return self.paired if math.isfinite(self.paired) else math.hypot(self.old.half, self.new.half)

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


def mean_change(changes: Sequence[Change], metric: Metric) -> Change:
    """The mean of changes over different records; not measured where there is none."""
    paired = math.sqrt(math.fsum(change.margin**2 for change in changes)) / len(changes) if changes else math.nan
    return Change(mean([each.old for each in changes]), mean([each.new for each in changes]), metric, paired)


def _amount(value: float, unit: str) -> str:
    return wording.change(abs(value), unit, signed=False).removesuffix(" points")
