"""Whether rows of a pass are computed alike wherever they stand and whatever stands beside them, on this very machine.

Fixed shapes (``core/tasks/passes.py``) make a record's gradient a function of its own records if the model and
the kernels treat rows alike. Rows never meet in the mathematics; but a kernel may round them differently by position,
and a model may mix rows after all. So before the first private step over a model the step's own path is taken over
made-up records, first beside autograd (``client/layouts.py``), then for some rungs and for two sets of made-up arrays,
ordinary ones and ones that overflow, with a fold, a table of slots and a teacher of the sizes that the task brings:

    row of record a among copies of itself  =  row of a among strangers, in each position,       bit for bit

Of several records, as many as a pass has: a kernel that rounds rows unlike shows it on some records only.

Where that fails, and only there, one record a pass is taken: slower, and exact by itself. Else it is found from how
many rows on a pass of a rung gives a record the same bits as a full one: only up to there are missing rows filled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.layouts import Layouts
from client.per_sample import PerSample
from llmchain_fl.core.adapter.resident import Resident, State
from llmchain_fl.core.adapter.value import CENTRE, KEYS, TAU, Arrays, is_beside, is_fold
from llmchain_fl.core.errors import TrainingError
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.guards.spec import TEACHER
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.tasks.passes import EVEN, STEP, Shape
from llmchain_fl.core.work import GuardSpec

log = logging.getLogger("llmchain_fl.client")
LONGER = (96, 256, 500)
"""Texts of about so many tokens are tried beside those of every rung up to 64, as far as the task allows them."""
GENTLE, ORDINARY, OVERFLOWING = 0.02, 0.3, 1e20
"""Size of the made-up arrays."""
ON_CPU, ON_GPU = 6, 16
ONE_RECORD = "%s: one record a pass, which is exact and slower"
MOST_FOUND = 64
"""How many answers are remembered: a server may bring other sizes in each round."""
T = TypeVar("T")
Words = NDArray[np.int64]
"""Token ids of a tokenizer."""


@dataclass(frozen=True)
class Brought:
    """What a round brings beside factors and head: a fold, a table of slots, a guard's teacher.

    Their sizes are the server's choice and decide which kernels run, so rows are tried with such of the same sizes.
    """

    arrays: Arrays = field(default_factory=dict)
    guard_arrays: Arrays = field(default_factory=dict)
    guards: tuple[GuardSpec, ...] = ()

    @property
    def beside(self) -> Arrays:
        """Fold and table of the adapter."""
        arrays = {**self.arrays, **{name: value for name, value in self.guard_arrays.items() if is_beside(name)}}
        return {name: value for name, value in arrays.items() if is_beside(name) or is_fold(name)}

    @property
    def key(self) -> tuple[object, ...]:
        """All that decides about kernels."""
        arrays = {**self.beside, **(self.guard_arrays if self.guards else {})}
        return (self.guards, *((name, value.shape) for name, value in sorted(arrays.items())))


def shape_for(resident: Resident, task: Task, longest: int, wanted: int, brought: Brought | None = None) -> Shape:
    """The shape of private passes: ``wanted`` rows (0: the machine's usual number) where rows are alike, else one."""
    usual = ON_GPU if resident.base.device.type == "cuda" else ON_CPU
    brought = brought or Brought()
    question = (task, longest, wanted or usual, resident.trained_names, torch.get_num_threads(), brought.key)
    return found_once(resident, question, lambda: _steady(resident, task, Shape(wanted or usual, longest), brought))


def found_once(resident: Resident, question: object, find: Callable[[], T]) -> T:
    """What ``find`` finds out about this very model, once for each ``question``."""
    if question not in resident.found:
        if len(resident.found) >= MOST_FOUND:
            resident.found.clear()
        resident.found[question] = find()
    return cast("T", resident.found[question])


def _steady(resident: Resident, task: Task, shape: Shape, brought: Brought) -> Shape:
    """Asked once for a resident, a choice of trained arrays, what is brought, and a number of threads.

    Raises:
        TrainingError: a trained array has no gradient of each record by itself.
    """
    if resident.base.tokenizer is None:
        return shape
    texts = [min(n, shape.longest) for n in (*range(STEP - 3, EVEN, STEP), *LONGER, shape.longest)]
    lengths = list({shape.kind(n): n for n in texts}.values())  # one for each kind of pass
    try:
        gentle, *states = (_made_up_state(resident, size, brought.beside) for size in (GENTLE, ORDINARY, OVERFLOWING))
        guards = SiteGuards(brought.guards, _made_up_like(brought.guard_arrays))
        probe = _Probe(resident, task, shape, known_ids(resident), guards)
        unlike = probe.unlike(lengths, gentle, states)
    except TrainingError:
        raise
    except Exception:  # what cannot be done at all is found out, in words, by the trial that follows
        unlike = "made-up records cannot be computed"
    if unlike:
        log.warning(ONE_RECORD, unlike)
        return replace(shape, rows=1)
    if shape.rows == 1:
        return shape
    if brought.beside:  # a fold may grow from round to round: a search each time costs more than full passes
        return shape
    return replace(shape, fewest=tuple((shape.kind(n), probe.fewest(n, states[0])) for n in lengths))


def _made_up_state(resident: Resident, size: float, beside: Arrays) -> State:
    draw = torch.Generator().manual_seed(5)
    made = (torch.randn(resident.theta.shape, generator=draw) * size).to(resident.theta.device)
    return replace(resident.state_of(_made_up_like(beside)), theta=made)


def _made_up_like(arrays: Arrays) -> Arrays:
    """Numbers of the same sizes: those of the server may hide how rows are rounded (zeros do)."""
    draw, made = np.random.default_rng(7), dict(arrays)
    for name, value in arrays.items():
        bare = name.removeprefix(f"{TEACHER}.")
        if bare in (KEYS, CENTRE) or is_fold(bare) or (bare != name and not is_beside(bare)):
            made[name] = (draw.normal(size=value.shape) * (1.0 if bare == KEYS else ORDINARY)).astype(np.float32)
        elif bare == TAU:
            made[name] = np.full_like(value, 0.1)
    return made


@dataclass(frozen=True)
class _Probe:
    """The private step's own path over made-up records."""

    resident: Resident
    task: Task
    shape: Shape
    words: Words
    guards: SiteGuards

    def unlike(self, lengths: Sequence[int], gentle: State, states: Sequence[State]) -> str:
        """Why full passes do not give each record its own gradient, bit for bit; empty: they do.

        Raises:
            TrainingError: passes of one record do not either.
        """
        examples = made_up_records(self.words, [lengths[len(lengths) // 2]] * self.shape.rows)
        examples.fix(self.shape)
        layouts = Layouts(self.resident, gentle, lambda index: self._losses(examples, index))
        layouts.check()
        if self.shape.rows == 1:
            return ""
        mixed = layouts.find(self.shape.rows)
        if mixed:
            return f"the layers {', '.join(sorted(mixed))} do not tell records apart"
        tried = {lengths[len(lengths) * k // 4] for k in range(4)} | {lengths[-1]}
        steady = all(self.alike(n, state) for n in tried for state in states)
        return "" if steady else "this model rounds the rows of a pass differently"

    def alike(self, length: int, state: State) -> bool:
        """Rows of records of one kind, at every place of a pass, in either order, and one among copies of itself."""
        rows, kind = self.shape.rows, self.shape.kind(length)
        inside = [n for k in range(rows) if self.shape.kind(n := max(2, length - 1 - k % 7)) == kind] or [length]
        lengths = [length, *(inside[k % len(inside)] for k in range(rows - 1))]
        orders = [[(place + turn) % rows for place in range(rows)] for turn in range(rows)]
        orders += [list(reversed(orders[0])), [0] * rows]
        passes = self._passes(lengths, state, *orders)
        rows_of: dict[int, list[Tensor]] = {}
        for order, result in zip(orders, passes, strict=True):
            for record, row in zip(order, result, strict=True):
                rows_of.setdefault(record, []).append(row)
        return all(_same(same[0], row) for same in rows_of.values() for row in same)

    def fewest(self, length: int, state: State) -> int:
        """Fewest rows from which on up to a full pass of this kind gives records the same bits."""
        every = list(range(self.shape.rows))
        (full,) = self._passes([length] * len(every), state, every)
        for count in range(len(every) - 1, 0, -1):
            (fewer,) = self._passes([length] * len(every), state, every[:count])
            if not all(_same(one, other) for one, other in zip(full, fewer, strict=False)):
                return count + 1
        return 1

    def _passes(self, lengths: Sequence[int], state: State, *indices: Sequence[int]) -> list[Tensor]:
        """The gradients of passes over made-up records of these lengths, and their losses as scores compute them."""
        examples = made_up_records(self.words, lengths)
        examples.fix(self.shape)
        rows = PerSample(self.resident, self.shape.rows)
        try:
            with self.resident.swapped(state):
                gradients = [rows.rows(len(index), self._backward(examples, index)).clone() for index in indices]
                with rows.paused(), torch.no_grad():
                    losses = [self._losses(examples, index).reshape(len(index), 1) for index in indices]
        finally:
            rows.close()
        return [torch.cat(both, dim=1) for both in zip(gradients, losses, strict=True)]

    def _losses(self, examples: Examples, index: Sequence[int]) -> Tensor:
        output = self.task.forward(examples, index)
        return self.task.losses(output) + self.guards.example_loss(self.task, examples, index, output)

    def _backward(self, examples: Examples, index: Sequence[int]) -> Callable[[], None]:
        return lambda: self._losses(examples, index).sum().backward()  # type: ignore[no-untyped-call]


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(7.0, 8.0, 9.0), other.nan_to_num(7.0, 8.0, 9.0))


def known_ids(resident: Resident) -> Words:
    """The ids of the tokenizer but for padding, ascending."""
    tokenizer = resident.base.tokenizer

    def listed() -> Words:
        return np.array(sorted(set(tokenizer.get_vocab().values()) - {tokenizer.pad_token_id}), dtype=np.int64)

    return found_once(resident, known_ids, listed)


def made_up_records(words: Words, lengths: Sequence[int]) -> Examples:
    """Records of these lengths out of ``words``, the same in every run; label or prompt: the first."""
    draw = np.random.default_rng(11)
    ids = [words[draw.integers(0, len(words), size=length)] for length in lengths]
    return Examples(ids, np.zeros(len(ids), dtype=np.int64))
