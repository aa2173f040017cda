"""A refusal is free and says nothing: its word depends on the task and the site's policy, never on a record.

Every impossible task below is sent to sites that differ in their records alone, and in nothing else: the answers must
be the same word, and nothing may be booked. A site that told two record sets apart by a word of refusal would answer
questions for nothing, as often as it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.guards.distill import DistillSite
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.privacy.audit.conformance import equal_counts, never
from llmchain_fl.privacy.audit.finding import Finding
from llmchain_fl.replies import Refusal, read_reply
from simulations.audit.effort import Effort
from simulations.audit.own_people import CROWD, Rows
from simulations.audit.own_run import ANCHOR, DISTILL, FIRST, REHEARSAL, SECOND, Setting, small
from simulations.audit.own_site import OwnSite, made_up_rows
from simulations.audit.replies import Seen
from simulations.guard_specs import spec_of

Make = Callable[[], TrainTask]


def _plain() -> TrainTask:
    return Setting(small()).task(1, 1e-3)


def _with(change: Callable[[Arrays], Arrays]) -> Make:
    return lambda: replace(_plain(), arrays=change(dict(_plain().arrays)))


def _work(**settings: object) -> Make:
    """The plain task with another work description; its arrays stay those of the plain one."""
    return lambda: replace(_plain(), work=Setting(small(**settings)).work.to_json())  # type: ignore[arg-type]


def _without_first(arrays: Arrays) -> Arrays:
    return dict(list(arrays.items())[1:])


def _misshapen(arrays: Arrays) -> Arrays:
    return {name: value[:, :-1] for name, value in arrays.items()}


def _another_loop() -> TrainTask:
    work = small()
    return replace(_plain(), work=replace(work, train=replace(work.train, sampling_rate=0.9)).to_json())


def _guard_without_settings() -> TrainTask:
    return replace(_plain(), work=small(guards=(spec_of(DistillSite),)).to_json())


def _misshapen_guard() -> TrainTask:
    task = Setting(small(guards=(DISTILL, ANCHOR))).task(1, 1e-3)
    return replace(task, guard_arrays={name: value.ravel()[:3] for name, value in task.guard_arrays.items()})


TASKS: Mapping[str, Make] = MappingProxyType(
    {
        "no such learning rate": lambda: replace(_plain(), lr=float("nan")),
        "a rate at which all overflows": lambda: replace(
            Setting(small(clip_norm=1e6)).task(1, 1e3), lr=1e3, arrays=_huge()
        ),
        "an array is missing": _with(_without_first),
        "arrays of another shape": _with(_misshapen),
        "arrays that are not finite": _with(lambda a: {n: np.full_like(v, np.nan) for n, v in a.items()}),
        "arrays of float64": _with(lambda a: {n: v.astype(np.float64) for n, v in a.items()}),
        "arrays under which nothing is finite": lambda: replace(_plain(), arrays=_huge()),
        "an array nobody knows": _with(lambda a: {**a, "stranger": np.zeros(3, dtype=np.float32)}),
        "a stage twice": lambda: replace(_plain(), earlier=(FIRST, FIRST)),
        "the present stage again": lambda: replace(_plain(), earlier=(SECOND,)),
        "a factor nobody trains": lambda: replace(_plain(), trains=("lora_R",)),
        "another loop than the plan's": _another_loop,
        "a guard without settings": _guard_without_settings,
        "a guard's arrays misshapen": _misshapen_guard,
        "a rehearsal nobody pays for": _work(guards=(REHEARSAL,)),
        "longer texts than the base reads": lambda: replace(_plain(), work=_long_work()),
        "an update that no codec writes": lambda: replace(
            Setting(small(clip_norm=1e6, codec=CodecSpec("int8"))).task(1, 1e3), arrays=_huge()
        ),
        "no noise": _work(noise_multiplier=1e-3),
    }
)
"""what is wrong -> the task."""


def _huge() -> Arrays:
    return {name: np.full_like(value, 3e38) for name, value in _plain().arrays.items()}


def _long_work() -> str:
    work = small()
    return replace(work, task=replace(work.task, max_tokens=4000)).to_json()


SITES: Mapping[str, Callable[[Rows], list[dict[str, str]]]] = MappingProxyType(
    {
        "as usual": lambda rows: rows,
        "nobody": lambda rows: [],
        "a label that nobody lists": lambda rows: [*rows, {**rows[0], "label": "hiv"}],
        "no label that is listed": lambda rows: [{**row, "label": "hiv"} for row in rows],
        "a cell is empty": lambda rows: [*rows, {**rows[0], "text": ""}],
        "no person": lambda rows: [{key: value for key, value in row.items() if key != "person"} for row in rows],
        "a long text": lambda rows: [*rows, {**rows[0], "text": "card " * 5000}],
        "a broken line": lambda rows: rows,
    }
)
"""what is special about the records -> the records, of the usual ones."""
BROKEN_LINE = '{"text": "card'


def refusals(folder: Path, effort: Effort) -> list[Finding]:
    """Every task at every site; and the plain task, which every site must answer by an update."""
    seen, usual = Seen(), made_up_rows(small().task, CROWD)
    tasks = {name: make() for name, make in TASKS.items()}
    answers: dict[str, list[str]] = {name: [] for name in tasks}
    booked, updates = 0, 0
    for number, (kind, change) in enumerate(SITES.items()):
        site = OwnSite(folder / str(number), seen, epsilon=8.0).write(SECOND, change(usual)).write(FIRST, [])
        if kind == "a broken line":
            site.spoil(SECOND, BROKEN_LINE)
        for name, task in tasks.items():
            answers[name].append(_word(site, task))
        site.hello()
        booked += site.booked()
        updates += _word(site, _plain()) == "update"
    telling = [name for name, words in answers.items() if len(set(words)) > 1]
    taken = [name for name, words in answers.items() if "update" in words]
    return [
        never("refusals that tell of records", len(telling), f"Tasks: {', '.join(telling) or 'none'}."),
        never("impossible tasks that were done", len(taken), f"Tasks: {', '.join(taken) or 'none'}."),
        never("paid for impossible tasks", booked, f"Reservations, of {len(tasks) * len(SITES)} refusals."),
        equal_counts("sites that answer a plain task", len(SITES), updates, "Whatever their records are."),
        seen.finding("refusals"),
    ]


def _word(site: OwnSite, task: TrainTask) -> str:
    answer = read_reply(site.train(task))
    return answer.code if isinstance(answer, Refusal) else "update"
