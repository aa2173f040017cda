"""What guards send to a site from the second stage on, made by their own server halves from made-up records."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import GuardSpec, WorkSpec, open_work
from llmchain_fl.guards.protocol import View
from llmchain_fl.guards.server_guards import ServerGuards
from simulations.audit.tiny_base import WORDS

PUBLIC, STAGES = 24, ("first", "second")
"""Made-up public records, of two stages in turn."""


@functools.lru_cache(maxsize=4)
def _payload(work: WorkSpec) -> Arrays:
    resident, task = open_work(work.resident, work.task)
    resident.focus(work.adapter.trained)
    draw = np.random.default_rng(17)
    moved = {n: v + draw.normal(0, 0.05, v.shape).astype(np.float32) for n, v in resident.fresh().items()}
    rows = _public_rows(work.task)
    guards = ServerGuards(work.guards)
    view = View(
        round=1,
        stage=0,
        stages=STAGES,
        last=True,
        scale=work.adapter.scale,
        seed=1,
        before=resident.fresh(),
        probe=lambda arrays: {},
        task=task,
        public=task.encode(rows),
        public_rows=tuple(rows),
    )
    guards.step(view, moved)
    guards.on_stage_end(view, moved, guards.serve(view, moved))
    guards.step(replace(view, round=2, stage=1), moved)
    resident.reset()
    return guards.payload()


def guard_arrays(work: WorkSpec) -> Arrays:
    """The payload of a run's guards after its first stage, in which the adapter moved at random."""
    if not work.guards:
        return {}
    plain = replace(work, plan=None, guards=tuple(_loud(guard) for guard in work.guards))
    return dict(_payload(replace(plain, train=replace(work.train, proximal=0.0))))


def _loud(guard: GuardSpec) -> GuardSpec:
    """What travels does not depend on how strong a guard is."""
    return GuardSpec(guard.name, tuple((key, 1.0 if key in QUIET else value) for key, value in guard.settings))


QUIET = ("strength", "weight")
"""Settings by which a guard pulls."""


def _public_rows(spec: TaskSpec) -> list[dict[str, str]]:
    draw = np.random.default_rng(18)
    labels = [name for name, _ in spec.labels]
    rows = []
    for number in range(PUBLIC):
        label = labels[number % len(labels)] if labels else ""
        rows.append({**made_up_row(spec, draw, 4, label), "stage": STAGES[number % 2]})
    return rows


def made_up_row(spec: TaskSpec, draw: np.random.Generator, words: int, label: str) -> dict[str, str]:
    """A record of the kind of ``spec``: so many words in each column, or whatever the kind makes of them."""
    kind = task_kind(spec.kind)
    if kind.made_up is not None:
        return kind.made_up_row(text(draw, words), label)
    row = {column: text(draw, words) for column in kind.columns}
    return row | {"label": label} if "label" in row else row


def text(draw: np.random.Generator, words: int) -> str:
    """So many words."""
    return " ".join(str(word) for word in draw.choice(WORDS, size=words))
