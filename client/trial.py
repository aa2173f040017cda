"""The whole round once on made-up records, before anybody pays: what cannot be done is found out for free.

Arrays that do not fit, half a table of slots, a guard's payload of another shape, a layer without a rule for private
gradients, a loss that is not finite, a learning rate at which nothing moves or everything overflows, an update that the
codec cannot write: each would otherwise break the round off after the ledger was charged. The trial is a function of
the task, the base and constants, so a refusal tells nothing about records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from client import outbox
from client.steady import found_once, known_ids, made_up_records
from client.training import Train
from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.adapter.value import Arrays, is_beside
from llmchain_fl.core.errors import SAME, LlmchainError, ModelError, TrainingError, WireError
from llmchain_fl.core.first_pass import text_config
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.privacy.sampling import seeded_uniform
from llmchain_fl.core.privacy.units import Units
from llmchain_fl.core.tasks.base import Examples, Task, joined
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.tasks.passes import Shape
from llmchain_fl.core.tasks.spec import StageLabels, TaskSpec
from llmchain_fl.core.work import WorkSpec

LENGTHS = (8, 16)
"""Tokens of made-up records beside WORDS."""
WORDS = ("a record that nobody wrote", "another one, which is somewhat longer so that two lengths are tried")
PROCESS_MB, TOKEN_BYTES, SPARE_ROWS = 570, 121, 20
"""Measured: a process that has loaded torch; bytes an activation takes per token, layer and unit of width; copies of
the trained vector beside one row a record."""


def load(resident: Resident, task: TrainTask, own: Arrays) -> None:
    """The adapter of the round in memory: the global arrays, what stands beside them, what stays at this site."""
    resident.reset()
    resident.load(task.arrays)
    resident.load({name: value for name, value in task.guard_arrays.items() if is_beside(name)})
    resident.load(own)


def try_out(task: TrainTask, work: WorkSpec, nlp_task: Task, own: Arrays, shape: Shape | None, loop: Train) -> None:
    """One step on made-up records, and its update packed.

    ``own``: the trained arrays that stay here. ``shape``: of private passes; None: padded by batch.

    Raises:
        LlmchainError: why the round cannot be done.
    """
    try:
        load(nlp_task.resident, task, own)
        _step(task, work, nlp_task, shape, loop)
    except LlmchainError:
        raise
    except Exception as error:
        raise WireError(f"the task cannot be done on made-up records ({type(error).__name__})", remedy=SAME) from error


def _step(task: TrainTask, work: WorkSpec, nlp_task: Task, shape: Shape | None, loop: Train) -> None:
    labels, resident = work.task.taught(task.stage_name, task.earlier), nlp_task.resident
    # made once: what frozen layers make of them is then known in the rounds that follow
    examples = found_once(resident, (_records, nlp_task, labels, shape), lambda: _records(work, nlp_task, labels))
    examples.fix(shape)
    units = Units.of_records(len(examples)).members
    spec = replace(work.train, steps=1, micro_batch=len(units))
    guards = SiteGuards(work.guards, task.guard_arrays, labels)
    result = loop(nlp_task, examples, [list(units)], spec, work.plan, guards, task.lr)
    if result.unusable == 1.0:
        nlp_task.losses(nlp_task.forward(examples, [0]))  # says why, where a record cannot be computed at all
        raise TrainingError(
            "not one made-up record has a gradient that is finite",
            remedy="look at the adapter's arrays and the base: lower train.lr, or start from an earlier adapter",
        )
    if work.codec.name != "none":
        delta = {
            name: value if result.direct else (value - task.arrays[name]).astype(np.float32)
            for name, value in result.arrays.items()
            if name in task.arrays
        }
        outbox.packed(delta, outbox.Packing(work.codec, seeded_uniform(1, "trial", 1), {}))


def _records(work: WorkSpec, nlp_task: Task, labels: StageLabels | None) -> Examples:
    """Made-up texts as the task encodes them, and records of made-up ids; all of a label that the round teaches."""
    texts = nlp_task.encode(made_up_rows(work.task))
    full = made_up_records(known_ids(nlp_task.resident), [min(length, work.task.max_tokens) for length in LENGTHS])
    examples = joined([texts, full])
    if labels is not None:
        examples.targets[:] = labels.own[0]
    return examples


def made_up_rows(spec: TaskSpec) -> Sequence[Mapping[str, str]]:
    """Rows with the columns of the task; the first label."""
    label = spec.labels[0][0] if spec.labels else ""
    return [task_kind(spec.kind).made_up_row(words, label) for words in WORDS]


def check_memory(work: WorkSpec, resident: Resident, rows: int, allowed_mb: int, most_trained: int) -> None:
    """Refuse work that would need more memory than there is, by an estimate.

        0.57 GB + weights + 121 B x layers x width x tokens of a pass + 4 B x trained x (rows + 20)

    (the constants were measured on BERT shapes on a CPU: 0.28 MB a token with six layers of width 384).

    Raises:
        ModelError: more trained numbers, or more memory, than the site allows.
    """
    trained = resident.trained_size
    if trained > most_trained:
        raise ModelError(
            f"{trained} trained numbers, the site allows {most_trained}",
            remedy="lower adapter.rank or adapter.targets, or let the data holder decide on limits.max_trained",
        )
    config = text_config(resident.base.module)
    layers, width = int(getattr(config, "num_hidden_layers", 1) or 1), resident.base.hidden_size
    layers *= 1 + resident.base.two_stacks
    weights = found_once(resident, "weights", lambda: sum(value.nbytes for value in resident.base.module.parameters()))
    tokens = rows * work.task.max_tokens
    need = PROCESS_MB + (weights + TOKEN_BYTES * layers * width * tokens + 4 * trained * (rows + SPARE_ROWS)) / 2**20
    if need > allowed_mb:
        raise ModelError(
            f"the round needs some {need:.0f} MB by estimate, the site has {allowed_mb}",
            remedy="lower compute.rows or compute.micro_batch, model.max_tokens or adapter.rank",
        )
