"""What stands above the rows of a comparison: the score before training, and a head that needs no training.

| row | stands in | measured |
|---|---|---|
| zero-shot | the table of all numbers of a comparison of guards | round 0 |
| closed-form head | every table with the main score | in a simulation with labels, unless ``data.baseline`` = 0 |

Both are means over all cells, by unit; the head in the table by the last axis over the cells with that label.
"""

from __future__ import annotations

from llmchain_fl.compare.spread import Groups, Spread, of_spread

ZERO_SHOT, CLOSED_FORM = "zero-shot", "closed-form head"
HEAD = "closed_form_head"
"""The measure behind the row ``CLOSED_FORM``."""


def main_scores(groups: Groups) -> tuple[str, str]:
    """The measures that a reference has a number for."""
    return "average_accuracy", next(iter(groups.metrics), "")


def zero_shot(groups: Groups) -> str:
    """The score of round 0, before any training: the same for every guard."""
    every = [outcome for group in groups.by_key.values() for outcome in group]
    scores = groups.over(every, lambda outcome: outcome.zero_shot)
    return of_spread(Spread.of(scores.values()), "average_accuracy", groups.metrics)


def head_of(groups: Groups, last: str = "") -> str:
    """What a closed-form head reaches (where the last axis has the label ``last``); empty where it was not measured."""
    every = [outcome for key, group in groups.by_key.items() if not last or key[-1] == last for outcome in group]
    spread = Spread.of(groups.over(every, lambda outcome: outcome.number(HEAD)).values())
    return of_spread(spread, HEAD, groups.metrics) if spread.n else ""


def about_head(groups: Groups) -> str:
    """The note to its row; empty where it was not measured."""
    if not head_of(groups):
        return ""
    return f"{CLOSED_FORM}: ridge on the frozen base with random features, all records in one place, without privacy"
