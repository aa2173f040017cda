"""Whether rows of a pass are computed alike wherever they stand and whatever stands beside them, on this very machine.

Fixed shapes (``llmchain_fl/tasks/passes.py``) make a record's gradient a function of its own records if the model and
the kernels treat rows alike. Rows never meet in the mathematics; but a kernel may round them differently by position,
and a model may mix rows after all. So before the first private step over a model the step's own path is taken over
made-up records, for some rungs and for two sets of made-up arrays, ordinary ones and ones that overflow:

    row of record a among copies of itself, each position  =  row of a among strangers,       bit for bit

Where that fails, and only there, one record a pass is taken: slower, and exact by itself. Then it is found from how
many rows on a pass of a rung gives a record the same bits as a full one: only up to there are missing rows filled.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.per_sample import PerSample
from llmchain_fl.adapter.resident import Resident, State
from llmchain_fl.tasks.base import Examples, Task
from llmchain_fl.tasks.passes import EVEN, STEP, Shape, rung

log = logging.getLogger("llmchain_fl.client")
LONGER = (96, 256, 500)
"""Texts of about so many tokens are tried beside those of every rung up to 64, as far as the task allows them."""
ORDINARY, OVERFLOWING = 0.05, 1e20
"""Size of the made-up arrays."""
ON_CPU, ON_GPU = 6, 16
Words = NDArray[np.int64]
"""Token ids of a tokenizer."""


def shape_for(resident: Resident, task: Task, longest: int, wanted: int) -> Shape:
    """The shape of private passes: ``wanted`` rows (0: the machine's usual number) where rows are alike, else one."""
    usual = ON_GPU if resident.base.device.type == "cuda" else ON_CPU
    asked = (task, longest, wanted or usual, resident.trained_names, torch.get_num_threads())
    if asked not in resident.found:
        resident.found[asked] = _steady(resident, task, longest, wanted or usual)
    shape = resident.found[asked]
    assert isinstance(shape, Shape)
    return shape


def _steady(resident: Resident, task: Task, longest: int, rows: int) -> Shape:
    """Asked once for a resident, a choice of trained arrays and a number of threads."""
    shape = Shape(rows, longest)
    if rows == 1 or resident.base.tokenizer is None:
        return shape
    lengths = sorted({min(n, longest) for n in (*range(STEP - 3, EVEN, STEP), *LONGER)})
    words, states = known_ids(resident), [_made_up_state(resident, size) for size in (ORDINARY, OVERFLOWING)]
    tried = {lengths[0], lengths[len(lengths) // 2], lengths[-1]}
    if not all(_same_rows(resident, task, shape, n, words, state) for n in tried for state in states):
        log.warning("this model rounds the rows of a pass differently: one record a pass, which is exact and slower")
        return replace(shape, rows=1)
    fewest = {shape.padded(n): _fewest(resident, task, shape, n, words, states[0]) for n in lengths}
    return replace(shape, fewest=tuple(fewest.items()))


def _made_up_state(resident: Resident, size: float) -> State:
    draw = torch.Generator().manual_seed(5)
    return State((torch.randn(resident.theta.shape, generator=draw) * size).to(resident.theta.device), {})


def _fewest(resident: Resident, task: Task, shape: Shape, length: int, words: Words, state: State) -> int:
    """Fewest rows from which on up to ``shape.rows`` a pass of this rung gives a record the same bits."""
    full = _copies(resident, task, shape, length, shape.rows, words, state)
    for count in range(shape.rows - 1, 0, -1):
        if not _same(full, _copies(resident, task, shape, length, count, words, state)):
            return count + 1
    return 1


def _copies(
    resident: Resident, task: Task, shape: Shape, length: int, count: int, words: Words, state: State
) -> Tensor:
    """The gradient of one made-up record in a pass of ``count`` copies of it."""
    examples = made_up_records(words, [length])
    examples.fix(shape)
    rows = PerSample(resident, count)
    try:
        with resident.swapped(state):
            return _gradients(rows, task, examples, [0] * count)[0]
    finally:
        rows.close()


def _same_rows(resident: Resident, task: Task, shape: Shape, length: int, words: Words, state: State) -> bool:
    """Of one record ``length`` tokens long, among copies of itself and among strangers of its rung."""
    others = [max(2, length - 1 - k % 7) for k in range(shape.rows)]
    inside = [n for n in others if rung(n, shape.longest) == rung(length, shape.longest)] or [length]
    examples = made_up_records(words, [length, *(inside[k % len(inside)] for k in range(shape.rows - 1))])
    examples.fix(shape)
    rows = PerSample(resident, shape.rows)
    try:
        with resident.swapped(state):
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


def known_ids(resident: Resident) -> Words:
    """The ids of the tokenizer but for padding, ascending."""
    tokenizer = resident.base.tokenizer
    return np.array(sorted(set(tokenizer.get_vocab().values()) - {tokenizer.pad_token_id}), dtype=np.int64)


def made_up_records(words: Words, lengths: Sequence[int]) -> Examples:
    """Records of these lengths out of ``words``, the same in every run; label or prompt: the first."""
    draw = np.random.default_rng(11)
    ids = [words[draw.integers(0, len(words), size=length)] for length in lengths]
    return Examples(ids, np.zeros(len(ids), dtype=np.int64))
