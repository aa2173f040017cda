"""What does not go with heads in closed form."""

from __future__ import annotations

from collections.abc import Iterator

from llmchain_fl.aggregation import HEAD_ONLY
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.methods import CLOSED_FORM
from llmchain_fl.core.tasks.kind import task_kind


def closed_form_faults(run: RunConfig) -> Iterator[str]:
    """One line each; none with another ``train.method``."""
    if run.train.method != CLOSED_FORM:
        return
    key = 'train.method = "closed-form"'
    if not task_kind(run.task.kind).pooled or run.task.head != "trained":
        yield f'{key} computes the head of a classifier: set task.kind = "classification", task.head = "trained"'
    if run.aggregation.rule != HEAD_ONLY or run.aggregation.optimizer != "none" or run.aggregation.robust != "none":
        yield f'{key} adds sums up: set aggregation.rule = "{HEAD_ONLY}", no server optimizer and no robust step'
    if run.aggregation.personal_head or run.aggregation.weights:
        yield f"{key} makes one head of all records: no aggregation.personal_head, no aggregation.weights"
    if run.privacy.enabled:
        yield (
            f'{key} has no differential privacy: its sums are not noised; train.method = "lockstep" with '
            'privacy.noise = "sum" has'
        )
    if run.continual.guards:
        yield f"{key} forgets nothing: set continual.guards = []"
    if any(stage.rounds != 1 for stage in run.stage):
        yield f"{key} takes one round a stage: set rounds = 1 in every stage"
    if run.compression.up != "none":
        yield f'{key} sends sums as they are: set compression.up = "none"'
    if run.stream.play != "sequence":
        yield f'{key} gives the same head in every order: set stream.play = "sequence"'
