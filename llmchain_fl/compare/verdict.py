"""What a comparison says, in sentences: who is told apart from whom, with margins. No ranking from one repetition.

| the rows that differ in the first axis alone | what is said |
|---|---|
| the best mean rests on one unit | no ranking: each number is a single run |
| the best is told apart from all others | that it is best, and by how much from the next |
| it is not told apart from some | which these are, and the margin to the nearest; who is clearly worse |
| a closed-form head on the frozen base was measured | what it reaches, beside the rest |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmchain_fl.compare.measures import measure
from llmchain_fl.compare.references import HEAD, head_of
from llmchain_fl.compare.spread import BEST, Difference, Groups, Key, Spread, Values, difference, marks, of_spread
from llmchain_fl.compare.table import columns_of, unit_words
from llmchain_fl.core.tasks.metric import SHARE
from llmchain_fl.report import wording

MOST_NAMED = 6


def verdict(groups: Groups) -> list[str]:
    """One sentence for each set of rows with the same other labels, and what all are held against."""
    comparison = groups.comparison
    name = "average_accuracy" if comparison.continual else comparison.score
    columns = columns_of(groups, name)
    sentences = [_said(groups, name, others, column) for others, column in columns.items()]
    if not any(sentences) and any(sum(map(bool, column.values())) > 1 for column in columns.values()):
        units = unit_words(comparison)
        sentences = [
            f"No ranking: every number here is of a single run. Repetitions ({units}) tell a difference from chance."
        ]
    if reached := head_of(groups):
        reached += " %" if measure(HEAD).unit(groups.metrics) == SHARE else ""
        sentences.append(f"A closed-form head on the frozen base, from all records in one place, reaches {reached}.")
    return [sentence for sentence in sentences if sentence]


def _said(groups: Groups, name: str, others: Key, column: Mapping[Key, Values]) -> str:
    lower = measure(name).lower_is_better(groups.metrics)
    marked = marks(column, lower=lower)
    if not marked:
        return ""
    means = {key: Spread.of(units.values()) for key, units in column.items() if units}
    ranked = sorted(means, key=lambda key: means[key].mean if lower else -means[key].mean)
    best = next(key for key in ranked if marked.get(key) == BEST)
    rest = [key for key in ranked if key != best]
    tied = [key for key in rest if key in marked]
    axes = groups.comparison.shown
    where = ", ".join(f"{axis.name} {label}" for axis, label in zip(axes[1:], others, strict=True))
    first = f"At {where}, " if where else ""
    first += f"{axes[0].name} {best[0]} ({of_spread(means[best], name, groups.metrics)})"
    if not tied:
        gap = difference(column[best], column[rest[0]], lower=lower)
        return f"{first} is best: {_gap(gap, name, groups)} better than {rest[0][0]}, the next."
    gap = difference(column[best], column[tied[0]], lower=lower)
    worse = [key for key in rest if key not in marked]
    text = f"{first} is not told apart from {_names(tied)}: {tied[0][0]} is {_gap(gap, name, groups)} away"
    return text + (f"; clearly worse: {_names(worse)}." if worse else ".")


def _gap(gap: Difference, name: str, groups: Groups) -> str:
    """``9.0 points (margin 12.7, n = 2)``."""
    unit = measure(name).unit(groups.metrics)
    amount = wording.change(abs(gap.spread.mean), unit, signed=False)
    if gap.spread.n < 2:
        return f"{amount} (margin not known, n = {gap.spread.n})"
    margin = wording.change(gap.margin, unit, signed=False).removesuffix(" points")
    return f"{amount} (margin {margin}, n = {gap.spread.n})"


def _names(keys: Sequence[Key]) -> str:
    more = [f"{len(keys) - MOST_NAMED} more"] if len(keys) > MOST_NAMED else []
    return ", ".join([*(key[0] for key in keys[:MOST_NAMED]), *more])
