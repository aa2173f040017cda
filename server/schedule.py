"""Round number -> stage, learning rate, for the run and for each site. Public, known before the first round."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from llmchain_fl.config.calendar import NONE, Ended, Span, calendar, span_of, stages_in_order, trained_as
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.stream import JOINT


@dataclass(frozen=True)
class ScheduledRound:
    """One round of the plan. ``round`` counts from 1 over all stages, ``stage`` from 0 in the order taught.

    ``fresh``: the adapter, the rule and the guards start anew before this round (``stream.play = "alone"``).
    """

    round: int
    stage: int
    stage_name: str
    lr: float
    last: bool
    fresh: bool = False


def learning_rate(position: int, rounds: int, lr: float, final: float) -> float:
    """Cosine from ``lr`` (first round of a stage) to ``lr * final`` (its last round).

    lr_p = lr * (final + (1 - final) * (1 + cos(pi * p / (rounds - 1))) / 2),  p = 0 .. rounds - 1.

    ================  ===========
    case              result
    ================  ===========
    final = 1         lr always
    one round         lr
    ================  ===========
    """
    if rounds < 2:
        return lr
    return lr * (final + (1 - final) * (1 + math.cos(math.pi * position / (rounds - 1))) / 2)


def schedule(config: RunConfig, ended: Ended = NONE) -> Iterator[ScheduledRound]:
    """Every round of the run, in order: when the stages end, and R matrix rows are made. Of the configuration alone.

    ======================  ==========================================================================================
    ``stream.play``         rounds
    ======================  ==========================================================================================
    sequence                each stage's rounds, in the order taught
    joint                   as many, with the same ends; one cosine over all of them, as all records are one stage
    alone                   as in sequence; the first round of every stage but the first is ``fresh``
    ======================  ==========================================================================================

    Args:
        config: the run.
        ended: stage name -> last round, of the stages whose end was announced.

    Raises:
        RunError: an end that lies outside its stage.
    """
    alone = config.stream.play == "alone"
    for span in calendar(config, ended):
        for number in range(span.first, span.last + 1):
            fresh = alone and number == span.first > 1
            yield ScheduledRound(number, span.stage, span.name, _rate(config, span, number), number == span.last, fresh)


def rate_of(config: RunConfig, number: int, ended: Ended = NONE) -> float:
    """Learning rate of round ``number`` by the run's calendar."""
    return next(planned.lr for planned in schedule(config, ended) if planned.round == number)


def stage_rounds(config: RunConfig, number: int, ended: Ended = NONE) -> list[int]:
    """All rounds of the stage of round ``number``, by the run's calendar."""
    planned = list(schedule(config, ended))
    stage = next(one.stage for one in planned if one.round == number)
    return [one.round for one in planned if one.stage == stage]


def late_of(config: RunConfig, number: int, ended: Ended = NONE) -> tuple[int, bool]:
    """The first of the late rounds of the stage of round ``number``, over which its adapters are averaged, and whether
    it is the last one; ``(0, False)`` for a round before them. ``train.average`` of a stage's rounds are late.

    ================  =======================================
    case              result
    ================  =======================================
    average = 0       (0, False) always
    less than a half  of one round: (0, False) always
    average = 1       the first round of the stage
    ================  =======================================
    """
    rounds = stage_rounds(config, number, ended)
    late = rounds[len(rounds) - round(config.train.average * len(rounds)) :]
    return (late[0], number == late[-1]) if number in late else (0, False)


def site_round(config: RunConfig, site: str, number: int, ended: Ended = NONE) -> ScheduledRound | None:
    """Round ``number`` as ``site`` plays it: what it trains on, is told and is charged for. None: it is not there.

    ``stage_name`` is the name of the records (``joint`` for those of all stages); ``stage`` the place of the stage in
    the order taught; ``lr`` follows the site's own position in its stage; ``last``: the site's own last round of it.
    """
    span = span_of(config, site, number, ended)
    if span is None:
        return None
    name = trained_as(config, span.name)
    return ScheduledRound(number, span.stage, name, _rate(config, span, number), number == span.last)


def as_guards_see(config: RunConfig, planned: ScheduledRound) -> tuple[int, tuple[str, ...], bool]:
    """``(stage, names of all stages, last round of a stage)`` for a guard: where there is something old to keep.

    ==========  =======================================================================================
    play        seen
    ==========  =======================================================================================
    sequence    the planned's stage and the names in the order taught
    joint       one stage that does not end: there is nothing old, and nothing to consolidate
    alone       one stage, this one: guards start anew with it, so they protect nothing
    ==========  =======================================================================================
    """
    play = config.stream.play
    if play == "joint":
        return 0, (JOINT,), False
    if play == "alone":
        return 0, (planned.stage_name,), planned.last
    return planned.stage, tuple(stage.name for stage in stages_in_order(config)), planned.last


def _rate(config: RunConfig, span: Span, number: int) -> float:
    """By plan: a stage whose end is announced early has not come to the end of its cosine."""
    joint = config.stream.play == "joint"
    position, rounds = (number - 1, config.total_rounds) if joint else (number - span.start, span.rounds)
    return learning_rate(position, rounds, config.train.lr, config.train.lr_final)
