"""Whether rows of a pass are computed alike wherever they stand and whatever stands beside them, on this very machine.

Fixed shapes (``llmchain_fl/tasks/passes.py``) make a record's gradient a function of its own records if the model and
the kernels treat rows alike. Rows never meet in the mathematics; but a kernel may round them differently by position,
and a model may mix rows after all. So before the first private step over a model the step's own path is taken over
made-up records, for some rungs and for two sets of made-up arrays, ordinary ones and ones that overflow:

    row of record a among copies of itself, each position  =  row of a among strangers,       bit for bit

Where that fails, and only there, one record a pass is taken: slower, and exact by itself.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from client.per_sample import PerSample
from llmchain_fl.adapter.resident import Resident, State
from llmchain_fl.tasks.base import Examples, Task
from llmchain_fl.tasks.passes import Shape, rung

log = logging.getLogger("llmchain_fl.client")
LENGTHS = (5, 23, 64, 500)
"""Texts of about so many tokens are tried, as far as the task allows them."""
SIZES = (0.05, 1e20)
"""Of the made-up arrays: ordinary, and such that products overflow."""
ON_CPU, ON_GPU = 4, 16


def shape_for(resident: Resident, task: Task, longest: int, wanted: int) -> Shape:
    """The shape of private passes: ``wanted`` rows (0: the machine's usual number) where rows are alike, else one."""
    usual = ON_GPU if resident.base.device.type == "cuda" else ON_CPU
    asked = (longest, wanted or usual, resident.trained_names, torch.get_num_threads())
    rows = _steady_rows(resident, task, *asked)  # type: ignore[arg-type]
    return Shape(rows, longest)


@functools.lru_cache(maxsize=4)
def _steady_rows(
    resident: Resident, task: Task, longest: int, rows: int, trained: tuple[str, ...], threads: int
) -> int:
    """``rows``, or 1; asked once for a resident, a choice of trained arrays and a number of threads."""
    if rows == 1 or resident.base.tokenizer is None or _alike(resident, task, Shape(rows, longest)):
        return rows
    log.warning("this model rounds the rows of a pass differently: one record a pass, which is exact and slower")
    return 1


def _alike(resident: Resident, task: Task, shape: Shape) -> bool:
    draw = torch.Generator().manual_seed(5)
    lengths = sorted({min(length, shape.longest) for length in LENGTHS})
    for size in SIZES:
        made_up = (torch.randn(resident.theta.shape, generator=draw) * size).to(resident.theta.device)
        with resident.swapped(State(made_up, {})):
            for length in lengths:
                if not _same_rows(resident, task, shape, length):
                    return False
    return True


def _same_rows(resident: Resident, task: Task, shape: Shape, length: int) -> bool:
    """Of one record ``length`` tokens long, among copies of itself and among strangers of its rung."""
    others = [max(2, length - 1 - k % 7) for k in range(shape.rows)]
    inside = [n for n in others if rung(n, shape.longest) == rung(length, shape.longest)] or [length]
    examples = made_up_records(resident, [length, *(inside[k % len(inside)] for k in range(shape.rows - 1))])
    examples.fix(shape)
    rows = PerSample(resident, shape.rows)
    try:
        alone = _gradients(rows, task, examples, [0] * shape.rows)
        beside = _gradients(rows, task, examples, list(range(shape.rows)))
        last = _gradients(rows, task, examples, [*range(1, shape.rows), 0])
    except Exception:  # a model that cannot do it at all is found out, in words, by the trial that follows
        return False
    finally:
        rows.close()
    return all(_same(alone[0], row) for row in [*alone, beside[0], last[-1]])


def _gradients(rows: PerSample, task: Task, examples: Examples, index: Sequence[int]) -> Tensor:
    return rows.rows(
        len(index),
        lambda: task.losses(task.forward(examples, index)).sum().backward(),  # type: ignore[no-untyped-call]
    ).clone()


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(7.0, 8.0, 9.0), other.nan_to_num(7.0, 8.0, 9.0))


def made_up_records(resident: Resident, lengths: Sequence[int]) -> Examples:
    """Records of these lengths out of the tokenizer's own ids, the same in every run; label or prompt: the first."""
    known = sorted(set(resident.base.tokenizer.get_vocab().values()) - {resident.base.tokenizer.pad_token_id})
    draw = np.random.default_rng(11)
    ids = [np.asarray(draw.choice(known, size=length), dtype=np.int64) for length in lengths]
    return Examples(ids, np.zeros(len(ids), dtype=np.int64))
