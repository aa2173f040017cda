"""Stages with a kind of task of their own: pre-train, fine-tune, chat in one stream, with one ledger and one report.

Such a stage is the run with another ``task.kind``; what is learned goes into the same adapter, so all kinds must stand
on the same base and none may train a head of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmchain_fl.config.schema import RunConfig, StageConfig
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.core.tasks.spec import TaskSpec

COMMON = Metric("loss", "lower", "nats")
"""The main score of a run whose kinds of task have different ones: every kind has it."""


def kind_at(run: RunConfig, stage: StageConfig) -> str:
    """The kind of task of a stage."""
    return stage.task or run.task.kind


def at_stage(run: RunConfig, stage: StageConfig) -> RunConfig:
    """The run as this stage alone would be: the same, where the stage says no kind of its own."""
    if kind_at(run, stage) == run.task.kind:
        return run
    task = run.task.model_copy(update={"kind": stage.task, "windows": 0})
    return run.model_copy(update={"task": task})


def kinds_of(run: RunConfig) -> tuple[str, ...]:
    """Every kind of task of a run, the run's own first."""
    return tuple(dict.fromkeys([run.task.kind, *(kind_at(run, stage) for stage in run.stage)]))


def main_of(names: Sequence[str]) -> Metric:
    """The main score over stages of these kinds: what all of them have for theirs, else their loss."""
    mains = {task_kind(name).metrics[0] for name in names}
    return mains.pop() if len(mains) == 1 else COMMON


def stage_task_faults(run: RunConfig) -> Iterator[str]:
    """

    | stages of several kinds, and | fault |
    |---|---|
    | a kind that stands on another base | yes |
    | a kind, or a head, that is trained beside the adapter | yes |
    | a kind with a label list that is not the run's own | yes: ``task.labels`` belongs to ``task.kind`` |
    | public records for guards, probes, scores of sites | yes: these are read as one kind |
    | ``play = "joint"``, ``blur``, a guard that rehearses | yes: a stage would read another one's records |
    """
    others = [name for name in kinds_of(run) if name != run.task.kind]
    if not others:
        return
    own = task_kind(run.task.kind)
    for name in others:
        kind = task_kind(name)
        if kind.base_kind != own.base_kind:
            yield (
                f'stage.task = "{name}" stands on another base ({kind.base_kind}) than task.kind = "{run.task.kind}" '
                f"({own.base_kind}): make it another run"
            )
        if kind.named:
            yield f'stage.task = "{name}" has a label list: set task.kind to it, and the others in their stages'
    for name in kinds_of(run):
        if TaskSpec(name, run.task.head, (("a", "a"),)).head_size:
            yield (
                f'"{name}" trains a head beside the adapter, which stages of another task would fill with noise: '
                'set task.head = "label-text", or make it a run of its own with adapter.start'
            )
    uses = {
        "continual.public, or a stage's public": bool(run.continual.public) or any(one.public for one in run.stage),
        "stream.probes": bool(run.stream.probes),
        "sites.held_out": run.sites.held_out > 0,
        'stream.play = "joint"': run.stream.play == "joint",
        "stream.blur": run.stream.blur > 0,
        "a guard that rehearses earlier stages": run.continual.charged,
    }
    yield from (
        f"{key} with stages of several tasks: it is read as records of one kind; leave it out"
        for key, wrong in uses.items()
        if wrong
    )
