"""Which rounds are sums over each label's records: the first ones of a stage of new labels (``train.sums``)."""

from __future__ import annotations

from collections.abc import Sequence

from llmchain_fl.aggregation.class_sums import LabelRound
from llmchain_fl.config.calendar import NONE, Ended, stages_in_order, taught_in
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.planning.work import labels_by_stage
from server.schedule import schedule, stage_rounds


def label_round(config: RunConfig, labels: Sequence[str], number: int, ended: Ended = NONE) -> LabelRound | None:
    """What the sums of round ``number`` are for; None: it is a round of gradients.

    ==========================================================  =======================================
    case                                                        result
    ==========================================================  =======================================
    sums = 0, or less than half a round of the stage            None always
    a stage all of whose labels were taught before              None: its rows have learned more
    labels that were taught before, and new ones                the rows of the new ones
    every label of the list is taught (``play = "joint"``)      None: no row tells how much noise there is
    sites that are at another stage in this round               its labels are not silent; its rows stay
    ==========================================================  =======================================
    """
    if not config.train.sums:
        return None
    rounds = stage_rounds(config, number, ended)
    if number not in rounds[: round(config.train.sums * len(rounds))]:
        return None
    positions = dict(labels_by_stage(config, list(labels)))
    order = [one.name for one in stages_in_order(config)]
    stage = next(one.stage for one in schedule(config, ended) if one.round == number)
    earlier = {label for name in order[:stage] for label in positions.get(name, ())}
    rows = [label for label in positions.get(order[stage], ()) if label not in earlier]
    taught = {label for name in taught_in(config, number, ended) for label in positions.get(name, ())}
    silent = tuple(sorted(set(range(len(labels))) - taught - set(rows)))
    return LabelRound(rounds[0], tuple(rows), silent) if rows and silent else None
