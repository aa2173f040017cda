"""What is wrong with a stream: every fault at once, in plain words, with the nearest known name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from llmchain_fl.config.calendar import site_calendar
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.stream import JOINT, ArrivalConfig, StageConfig
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.words import nearest

Labels = frozenset[str | int]
"""Names; or positions, where a range is given and the label list is not known."""


def stream_faults(run: RunConfig) -> list[str]:
    """Everything that can be said before the label list and the sites are known.

    What needs the label list: ``kind_faults``; what needs the sites' names: ``calendar.unknown_sites``.
    """
    stages = [stage.name for stage in run.stage]
    if len(set(stages)) != len(stages):
        return []  # another check says so, and nothing here means anything
    stream = run.stream
    faults = list(_order_faults("stream.order", stream.order, stages, whole=True))
    laid_out = not faults  # a calendar needs an order that names stages
    faults += _play_faults(run)
    for site, arrival in stream.arrival.items():
        own = list(_order_faults(f'stream.arrival."{site}".order', arrival.order, stages, whole=False))
        faults += own or _arrival_faults(run, site, arrival, laid_out)
    if len(stream.arrival) > run.sites.count:
        faults.append(f"stream.arrival names {len(stream.arrival)} sites, sites.count = {run.sites.count}")
    known = None if isinstance(run.task.labels, str) else list(run.task.labels)
    return [*faults, *kind_faults(run, known)]


def _order_faults(key: str, order: Sequence[str], stages: Sequence[str], *, whole: bool) -> Iterator[str]:
    for name, times in Counter(order).items():
        if name not in stages:
            yield f'{key}: there is no stage "{name}"{nearest(name, stages)}'
        elif times > 1:
            yield f'{key} names the stage "{name}" {times} times; name it once'
    missing = [name for name in stages if name not in order]
    if whole and order and missing:
        yield f"{key} leaves out {_listed(missing)}: name every stage, or take the [[stage]] table out"


def _play_faults(run: RunConfig) -> Iterator[str]:
    stream = run.stream
    if (stream.kind == "blurry") != (stream.blur > 0):
        yield f'stream.blur = {stream.blur:g} with stream.kind = "{stream.kind}": "blurry", and only it, needs a share'
    if stream.blur and len(run.stage) < 2:
        yield f"stream.blur = {stream.blur:g} needs two stages or more to swap records between"
    if stream.play == "joint" and any(stage.name == JOINT for stage in run.stage):
        yield f'no stage can be named "{JOINT}" with stream.play = "joint": it is what all of them together are called'
    own = [f'"{site}"' for site, arrival in stream.arrival.items() if arrival.order or arrival.offset_rounds]
    if own and stream.play != "sequence":
        yield (
            f'stream.play = "{stream.play}" with an order or offset_rounds of {", ".join(own)}: the baselines have no '
            f"sites on other stages; take these settings out"
        )
    if own and stream.boundaries == "announced":
        yield (
            f'stream.boundaries = "announced" with an order or offset_rounds of {", ".join(own)}: nobody knows how '
            f'long their stages are; take these settings out, or set boundaries = "calendar"'
        )


def _arrival_faults(run: RunConfig, site: str, arrival: ArrivalConfig, laid_out: bool) -> list[str]:
    key, total = f'stream.arrival."{site}"', sum(stage.rounds for stage in run.stage)
    if arrival.leaves and arrival.leaves < arrival.joins:
        return [f"{key}: leaves = {arrival.leaves} is before joins = {arrival.joins}; it is the last round (0: none)"]
    reached = {span.name for span in site_calendar(run, site)} if laid_out else set(arrival.order)
    never = [name for name in arrival.order if name not in reached]
    if laid_out and not reached:
        return [f"{key}: the site is in none of the {total} rounds; lower joins or offset_rounds, or take the site out"]
    if never:
        return [
            f"{key} never comes to {_listed(never)} in {total} rounds; take it out of its order or lower its offset"
        ]
    return []


def kind_faults(run: RunConfig, labels: Sequence[str] | None) -> list[str]:
    """Whether the stages are of ``stream.kind``, and labels that ``relabel`` does not know.

    ====================  =====================================================================================
    kind                  needs
    ====================  =====================================================================================
    class-incremental     a classification; every stage names its labels; no label in two stages
    domain-incremental    every stage has the same labels (or none says any)
    task-incremental      a classification; every stage names its labels, among which it is scored
    blurry, empty         nothing
    ====================  =====================================================================================

    Args:
        run: the run.
        labels: the label list; None while it is not read. Ranges are then compared with ranges, names with names.
    """
    faults = list(_relabel_faults(run, labels))
    check = KINDS.get(run.stream.kind)
    return faults if check is None else [*faults, *check(run, [labels_named(stage, labels) for stage in run.stage])]


def labels_named(stage: StageConfig, labels: Sequence[str] | None = None) -> Labels:
    """What a stage names; empty for all. A range that is none is left to ``stage_labels``.

    ``labels``: the label list; None while it is not read.
    """
    if not isinstance(stage.labels, str):
        return frozenset(stage.labels)
    match = re.fullmatch(r"\s*(\d{1,6})\s*:\s*(\d{1,6})\s*", stage.labels)
    positions = range(int(match[1]), int(match[2])) if match else range(0)
    return frozenset(positions) if labels is None else frozenset(labels[i] for i in positions if i < len(labels))


def _need_labels(run: RunConfig, named: Sequence[Labels]) -> Iterator[str]:
    kind = run.stream.kind
    if not task_kind(run.task.kind).labelled:
        yield f'stream.kind = "{kind}" needs labels, and a {run.task.kind} task has none'
        return
    unsaid = [stage.name for stage, labels in zip(run.stage, named, strict=True) if not labels]
    if unsaid:
        yield f'stream.kind = "{kind}": no labels are said for {_listed(unsaid)}; set labels in that [[stage]] table'


def _class_incremental(run: RunConfig, named: Sequence[Labels]) -> Iterator[str]:
    yield from _need_labels(run, named)
    for (one, mine), (other, theirs) in combinations(zip(run.stage, named, strict=True), 2):
        both = mine & theirs
        if both:
            yield (
                f'stream.kind = "class-incremental": stages "{one.name}" and "{other.name}" share {len(both)} '
                f"label(s), the first is {_word(min(both, key=str))}; give it to one of them, or set another kind"
            )


def _domain_incremental(run: RunConfig, named: Sequence[Labels]) -> Iterator[str]:
    first, *others = zip(run.stage, named, strict=True)
    differ = [stage.name for stage, labels in others if labels != first[1]]
    if differ:
        yield (
            f'stream.kind = "domain-incremental": other labels than in "{first[0].name}" for {_listed(differ)}; give '
            f'all stages the same, or set kind = "class-incremental"'
        )


def _relabel_faults(run: RunConfig, labels: Sequence[str] | None) -> Iterator[str]:
    for site, arrival in run.stream.arrival.items():
        key = f'stream.arrival."{site}".relabel'
        if arrival.relabel and not task_kind(run.task.kind).labelled:
            yield f"{key} needs labels, and a {run.task.kind} task has none"
            continue
        for name in dict.fromkeys([*arrival.relabel, *arrival.relabel.values()]):
            if labels is not None and name not in labels:
                yield f'{key}: "{name}" is not in task.labels{nearest(name, labels)}'
        same = [name for name, other in arrival.relabel.items() if name == other]
        if same:
            yield f'{key} leaves "{same[0]}" as it is; take it out'


KINDS: dict[str, Callable[[RunConfig, Sequence[Labels]], Iterator[str]]] = {
    "class-incremental": _class_incremental,
    "domain-incremental": _domain_incremental,
    "task-incremental": _need_labels,
}


def _listed(names: Sequence[str]) -> str:
    """``stage "a"``, or ``stages "a", "b"``."""
    return f"stage{'s' * (len(names) > 1)} " + ", ".join(f'"{name}"' for name in names)


def _word(label: str | int) -> str:
    return f'"{label}"' if isinstance(label, str) else f"number {label} of the list"
