"""What a site must know to do its part: one frozen value, public constants only, the same for every site and round.

It is made from the run's configuration at the server, travels as JSON, and is checked against the site's own policy
before anything is read or spent.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import ClassVar

import pydantic

from llmchain_fl.core.adapter.resident import Resident, ResidentSpec, load_resident
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.base_model import BaseSpec
from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.errors import SAME, WireError
from llmchain_fl.core.guards.spec import GuardSpec
from llmchain_fl.core.methods import LOCAL, LOCKSTEP, METHODS
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.ranges import Bound, Range, range_faults
from llmchain_fl.core.readable import check_readable
from llmchain_fl.core.tasks.base import Task
from llmchain_fl.core.tasks.kind import build_task, task_kind
from llmchain_fl.core.tasks.spec import TaskSpec

__all__ = ["GuardSpec", "SecureSpec", "TrainSpec", "WorkSpec", "inference", "open_work"]


@dataclass(frozen=True)
class TrainSpec:
    """The local loop. ``plan`` None: the same loop, without clipping and noise."""

    steps: int
    sampling_rate: float
    batch_size: float
    micro_batch: int
    """A wish: the site decides how many records go through the model at once, which changes no result."""
    optimizer: str
    momentum: float
    seed: int
    proximal: float = 0.0
    method: str = "local"

    def faults(self) -> list[str]:
        """Fields outside their bounds, one line each."""
        faults = range_faults(self, _LOOP)
        if self.method != LOCAL and (self.steps != 1 or self.proximal):
            faults.append("steps: 1, and proximal 0, where the server takes the step")
        return faults


_LOOP: Mapping[str, Bound] = MappingProxyType(
    {
        "steps": Range(1, 1e6),
        "sampling_rate": Range(0, 1, above=True),
        "batch_size": Range(0, 1e6, above=True),
        "optimizer": ("adam", "sgd"),
        "momentum": Range(0, 1, below=True),
        "seed": Range(0, 2**63),
        "proximal": Range(0, 1e6),
        "method": tuple(METHODS),
    }
)


@dataclass(frozen=True)
class SecureSpec:
    """That the server learns the sum over the sites only (``core/secure/``).

    Attributes:
        members: most sites in one sum.
        survivors: fewest sites in a sum that is opened.
        largest: numbers beyond it are cut off, where no noise is shared; shared noise has the grid of its plan.
    """

    members: int
    survivors: int
    largest: float = 128.0

    def faults(self) -> list[str]:
        """Fields outside their bounds, one line each."""
        return range_faults(self, _SECURE)


_SECURE: Mapping[str, Bound] = MappingProxyType(
    {"members": Range(2, 2**16), "survivors": Range(2, 2**16), "largest": Range(0, 1e9, above=True)}
)


@dataclass(frozen=True)
class WorkSpec:
    """Everything but the round: model, adapter, task, loop, guards, privacy plan."""

    __pydantic_config__: ClassVar = pydantic.ConfigDict(extra="forbid", strict=True)

    base: BaseSpec
    adapter: AdapterSpec
    task: TaskSpec
    train: TrainSpec
    guards: tuple[GuardSpec, ...] = ()
    plan: PrivacyPlan | None = None
    codec: CodecSpec = field(default_factory=CodecSpec)
    cache_mb: int = 512
    threads: int = 0
    secure: SecureSpec | None = None

    def faults(self) -> list[str]:
        """Everything in it that is out of bounds, one line each; what the site allows of the rest is its own policy."""
        faults = self.base.faults() + self.adapter.faults() + self.task.faults() + self.train.faults()
        faults += [fault for guard in self.guards for fault in guard.faults()]
        if len({guard.name for guard in self.guards}) < len(self.guards):
            faults.append("a guard is named twice")
        if not self.adapter.trained and not self.task.trains_head:
            faults.append("trained: nothing would be trained: no factor, and no trained head")
        return faults + self._sum_faults() + range_faults(self, _MACHINE)

    def _sum_faults(self) -> list[str]:
        """Noise of a sum that would be opened one by one, or of fewer sites; a codec whose words do not add up."""
        plan, secure, faults = self.plan, self.secure, []
        if plan is not None and plan.is_shared:
            if secure is None or secure.survivors < plan.shares or secure.members > plan.members:
                faults.append("shared noise needs a secure sum of plan.shares to plan.members sites")
            if plan.unit != "site" and self.train.method != LOCKSTEP:
                faults.append("shared noise needs one gradient a round (lockstep), or the privacy unit site")
        if secure is None:
            return faults
        if self.codec.name != "none":
            faults.append("masked numbers cannot be made small by a codec")
        return faults + secure.faults()

    def to_json(self) -> str:
        """JSON text; ``from_json`` gives an equal value."""
        return _adapter().dump_json(self).decode()

    @staticmethod
    @functools.lru_cache(maxsize=4)  # a text is the same for every site and round of a run
    def from_json(text: str) -> WorkSpec:
        """Parse and check types.

        Raises:
            WireError: not JSON, a missing or unknown field, a wrong type, or a value out of its bounds.
            PrivacyError: a privacy plan out of its bounds.
        """
        if len(text) > MOST_TEXT:
            raise WireError(f"a work description of {len(text)} characters, at most {MOST_TEXT}", remedy=SAME)
        try:
            work = _adapter().validate_json(text)
        except (pydantic.ValidationError, ValueError, RecursionError) as error:
            count = error.error_count() if isinstance(error, pydantic.ValidationError) else 1
            raise WireError(f"the work description has {count} fault(s)", remedy=SAME) from None
        faults = work.faults()
        if faults:
            listing = "".join(f"\n  * {fault}" for fault in faults[:MOST_FAULTS])
            raise WireError(f"the work description has {len(faults)} fault(s):{listing}", remedy=SAME)
        return work

    def digest(self) -> str:
        """SHA-256 of the JSON text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @functools.cached_property
    def resident(self) -> ResidentSpec:
        """What must be in memory to do it."""
        vectors = task_kind(self.task.kind).vectors
        return ResidentSpec(self.base, self.adapter, self.task.head_size, self.cache_mb, self.task.features, vectors)


_MACHINE: Mapping[str, Bound] = MappingProxyType({"cache_mb": Range(0, 1e6), "threads": Range(0, 256)})
MOST_TEXT = 8 * 2**20
"""Longest work description, in characters: a list of 100,000 labels fits."""
MOST_FAULTS = 12
"""Faults that a message lists."""


@functools.lru_cache(maxsize=1)
def _adapter() -> pydantic.TypeAdapter[WorkSpec]:
    return pydantic.TypeAdapter(WorkSpec)


def open_work(resident_spec: ResidentSpec, task: TaskSpec) -> tuple[Resident, Task]:
    """The resident model of this process and the task over it (label vectors are computed once).

    Raises:
        ModelError: the base cannot be loaded, does not fit the adapter, or cannot read what the task gives it.
    """
    resident = load_resident(resident_spec)
    return resident, _task_over(resident, task)


def _task_over(resident: Resident, task: TaskSpec) -> Task:
    """Kept with one resident object: another one, even of the same spec, has another adapter attached."""
    if task not in resident.tasks:
        check_readable(resident.base, task)
        resident.head_start = {}
        resident.tasks[task] = build_task(task, resident), resident.head_start
    built, resident.head_start = resident.tasks[task]
    return built


def inference(spec: WorkSpec) -> WorkSpec:
    """The same work for prediction and scores: no guard, no plan."""
    return replace(spec, guards=(), plan=None)
