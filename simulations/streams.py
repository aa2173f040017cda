"""What a stream makes of the records dealt to one simulated site: other labels, blurred stages, all stages at once.

Pure functions over lists; which site holds a record never changes here, so persons and hospitals stay where they are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llmchain_fl.config.calendar import site_order
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.stream import JOINT, ArrivalConfig

Record = dict[str, str]


@dataclass(frozen=True)
class Share:
    """One site's records of one stage: those to train on, and those kept for its own score."""

    train: list[Record]
    held_out: list[Record]


def shaped(config: RunConfig, site: str, shares: Mapping[str, Share]) -> dict[str, Share]:
    """What ``site`` gets on its disk: stage (or ``joint``) -> records. Deterministic for ``config.seed`` and ``site``.

    ======================================  ===========================================================================
    setting                                 changes
    ======================================  ===========================================================================
    the arrival's ``order``, ``joins`` ...  stages the site is never sent to are not there
    the arrival's ``relabel``               labels of all its records, also of those kept for its own score
    ``stream.blur``                         stages of its training records; those kept for the score are of one stage
    ``stream.play = "joint"``               adds ``joint``: the training records of all its stages
    none of them                            nothing: the shares, as they are
    ======================================  ===========================================================================

    Args:
        config: the run.
        site: its name.
        shares: stage -> records dealt to it.
    """
    stream = config.stream
    sent = set(site_order(config, site))
    parts = {stage: share for stage, share in shares.items() if stage in sent}
    swaps = stream.arrival.get(site, ArrivalConfig()).relabel
    if swaps:
        parts = {s: Share(relabelled(part.train, swaps), relabelled(part.held_out, swaps)) for s, part in parts.items()}
    if stream.blur:
        draw = random.Random(f"blur/{config.seed}/{site}")
        mixed = blurred({stage: part.train for stage, part in parts.items()}, stream.blur, draw)
        parts = {stage: replace(part, train=mixed[stage]) for stage, part in parts.items()}
    if stream.play == "joint":
        parts[JOINT] = Share([record for part in parts.values() for record in part.train], [])
    return parts


def relabelled(records: Sequence[Record], swaps: Mapping[str, str]) -> list[Record]:
    """The records with other labels: the site whose task is at odds with the others'.

    The case that accurate forgetting is about (AF-FCL, Wuerkaixi et al., arXiv:2502.14205): keeping what such a site
    taught can harm the others.

    ==============================  ===============================================
    swaps                           result
    ==============================  ===============================================
    {a = "b"}                       every a is called b; b stays b
    {a = "b", b = "a"}              a and b change names (all at once, not in turn)
    a label that no record has      nothing
    ==============================  ===============================================
    """
    return [{**record, "label": swaps.get(record["label"], record["label"])} for record in records]


def blurred(parts: Mapping[str, Sequence[Record]], share: float, draw: random.Random) -> dict[str, list[Record]]:
    """Records of some stages change places with records of others: stages without a sharp edge.

    As "blurry" streams in Bang et al. 2021 (Rainbow Memory, arXiv:2103.17230): M percent of a task's records are of the
    other tasks' classes. Each stage puts up ``round(share * n)`` records, drawn uniformly; then two records of two
    stages at a time change places: one of the stage with most left to give, one of another drawn by how many it has.

    Where we differ: at each site by itself, and every record is used exactly once, so stages keep their sizes.

    ================================================  =======================================================
    case                                              result
    ================================================  =======================================================
    share = 0, or one stage                           the records, as they are
    an odd number is put up                           one record stays at home
    a stage puts up more than all others together     the surplus stays at home
    ================================================  =======================================================

    Args:
        parts: stage -> records.
        share: from 0 to 1.
        draw: all randomness; equal draws give equal results.
    """
    mixed = {stage: list(records) for stage, records in parts.items()}
    spots = {stage: draw.sample(range(len(r)), round(share * len(r))) for stage, r in mixed.items()}
    while sum(bool(left) for left in spots.values()) > 1:
        one = max(spots, key=lambda stage: len(spots[stage]))
        others = [stage for stage in spots if stage != one]
        other = draw.choices(others, [len(spots[stage]) for stage in others])[0]
        i, j = spots[one].pop(), spots[other].pop()
        mixed[one][i], mixed[other][j] = mixed[other][j], mixed[one][i]
    return mixed
