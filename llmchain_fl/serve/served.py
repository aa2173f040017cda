"""An adapter as it is served: read through a verified door, by its own name and address, with what its task needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from llmchain_fl.core.adapter.value import KEYS, Arrays
from llmchain_fl.core.base_model import BaseSpec
from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.serve.asking import Asking
from llmchain_fl.serve.bank import Factors, factors_of
from llmchain_fl.serve.heads import Head
from llmchain_fl.serve.reading import Reading

WRITES = "generator"
"""The kind of base that any task which writes stands on."""


class Verified(Protocol):
    """What serving asks of an adapter that was verified (``llmchain_fl/hub``)."""

    @property
    def label(self) -> str:
        """``name@version``."""

    @property
    def address(self) -> str:
        """SHA-256 of what was signed."""

    @property
    def parent(self) -> str:
        """Address of the version before it."""

    def to_load(self) -> Arrays:
        """All arrays, those beside the adapter too."""


@dataclass(frozen=True)
class Served:
    """One adapter of the bank.

    Attributes:
        number: in the bank.
        label: ``name@version``, by which tenants name it.
        address: content address; answers and feedback carry it.
        parent: address of the version before it.
        task: what it answers.
        head: of a task with labels.
        reading: of a task over the vectors of tokens.
        asking: of a task that makes its own prompts.
    """

    number: int
    label: str
    address: str
    parent: str
    task: TaskSpec
    head: Head | None = field(default=None, compare=False)
    reading: Reading | None = field(default=None, compare=False)
    asking: Asking | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The label without its version."""
        return self.label.partition("@")[0]

    @property
    def version(self) -> str:
        """The version alone."""
        return self.label.partition("@")[2]


@dataclass(frozen=True)
class Opened:
    """A verified adapter with the work it does over this machine's base."""

    verified: Verified
    base: BaseSpec
    task: TaskSpec
    scale: float

    def factors(self) -> Factors:
        """Its LoRA factors.

        Raises:
            ModelError: see :func:`check_servable`.
        """
        arrays = self.verified.to_load()
        check_servable(self.verified.label, arrays, self.scale)
        return factors_of(arrays, self.scale)


def check_servable(label: str, arrays: Mapping[str, np.ndarray], scale: float) -> None:
    """Refuse what would be answered otherwise than it was trained.

    =============================================  ==========================================================
    the adapter                                    result
    =============================================  ==========================================================
    LoRA factors, of any rank and of any layers    served
    slots without keys (their plain sum)           served
    slots of which each text chooses               ModelError: the choice is not built here
    a fold beside the factors                      ModelError
    every product B A is 0 and there is no head    ModelError: the base would answer in the adapter's name
    =============================================  ==========================================================

    Raises:
        ModelError: see the table.
    """
    if KEYS in arrays:
        raise ModelError(f"in {label} each text chooses among slots", remedy="use `llmchain-fl predict` for it")
    if any(".fold_" in name for name in arrays):
        raise ModelError(f"{label} has a fold beside its factors", remedy="publish the adapter folder of a run")
    if not factors_of(arrays, scale).moves and "head.weight" not in arrays:
        what = f"{label} changes nothing: every product of its factors is 0"
        raise ModelError(what, remedy="of a rule whose sites keep a factor of their own, serve at the sites")


def one_base(opened: Sequence[Opened]) -> BaseSpec:
    """The base of all of them. One that writes is the same for every kind of task that writes.

    Raises:
        ModelError: there is none, or more than one.
    """
    bases = {one.base for one in opened}
    if len(bases) > 1 and all(task_kind(one.task.kind).writes for one in opened):
        bases = {replace(base, kind=WRITES) for base in bases}
    if len(bases) != 1:
        names = ", ".join(sorted(f"{one.verified.label}: {one.base.path} ({one.base.dtype})" for one in opened))
        raise ModelError(
            f"a server holds one base model; the adapters stand on {len(bases)} ({names or 'no adapter'})",
            remedy="serve the adapters of each base by a server of their own",
        )
    return next(iter(bases))
