"""What a rate was before, and what it is behind a classifier that errs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from llmchain_fl.core.errors import ConfigError

LEAST_GAP = 0.1


def highest_rate(yes: int, texts: int, chance: float) -> float:
    """The upper end of the one-sided exact interval of a rate (Clopper and Pearson 1934).

        the p with P(Binomial(n, p) <= x) = ``chance``, the ``1 - chance`` quantile of Beta(x + 1, n - x)

    The true rate is above it with chance ``chance`` at most.

    | case | value |
    |---|---|
    | no text | 1 |
    | all yes | 1 |
    | no yes | 1 - chance^(1/n) |
    """
    return 1.0 if yes >= texts else float(stats.beta.ppf(1 - chance, yes + 1, texts - yes))


@dataclass(frozen=True)
class Confusion:
    """Chances that the classifier says yes: where it is so, and where it is not.

        observed rate q = fpr + p (tpr - fpr),   p = (q - fpr) / (tpr - fpr), cut to 0 .. 1

    (Rogan and Gladen 1978, American Journal of Epidemiology 107). Of public records that are labelled.

    | classifier | observed and corrected |
    |---|---|
    | never errs: tpr 1, fpr 0 | the same |
    | tpr - fpr below ``LEAST_GAP`` | ConfigError where it is read: nothing can be corrected by it |
    """

    right: float = 1.0
    """tpr."""
    wrong: float = 0.0
    """fpr."""

    @property
    def gap(self) -> float:
        """tpr - fpr: by how much the observed rate moves when the rate moves by 1."""
        return self.right - self.wrong

    def observed(self, rate: float) -> float:
        """What a classifier says of a stream with this rate."""
        return self.wrong + rate * self.gap

    def corrected(self, observed: float) -> float:
        """The rate behind what it says."""
        return min(1.0, max(0.0, (observed - self.wrong) / self.gap))


NO_ERRORS = Confusion()


def confusion_of(said: Sequence[bool], so: Sequence[bool]) -> Confusion:
    """Of public records: what the classifier says, and what is so.

    Raises:
        ConfigError: no record of one kind, or a classifier that cannot tell them apart.
    """
    yes, no = sum(so), len(so) - sum(so)
    if not yes or not no:
        kind = "of a watched label" if not yes else "of another label"
        raise ConfigError([f"reference: no record {kind}"], remedy="give public records of both kinds, or none at all")
    pairs = list(zip(said, so, strict=True))
    rates = Confusion(sum(s for s, t in pairs if t) / yes, sum(s for s, t in pairs if not t) / no)
    if rates.gap < LEAST_GAP:
        fault = f"reference: the adapter says yes to {rates.right:.0%} that are and {rates.wrong:.0%} that are not"
        raise ConfigError([fault], remedy="watch a label that the adapter knows, or leave `reference` out")
    return rates
