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

from llmchain_fl.adapter.resident import Resident, ResidentSpec, load_resident
from llmchain_fl.adapter.value import AdapterSpec
from llmchain_fl.base_model import BaseSpec
from llmchain_fl.compression.codec import CodecSpec
from llmchain_fl.config.calendar import sampling_rate
from llmchain_fl.config.continual import ContinualConfig
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.data.stages import answers
from llmchain_fl.errors import WireError
from llmchain_fl.printable import printable
from llmchain_fl.privacy.plan import PrivacyPlan
from llmchain_fl.ranges import Bound, Range, range_faults
from llmchain_fl.readable import check_readable
from llmchain_fl.tasks.base import Task
from llmchain_fl.tasks.spec import BASE_KIND, TaskSpec, build_task


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

    def faults(self) -> list[str]:
        """Fields outside their bounds, one line each."""
        return range_faults(self, _LOOP)


_LOOP: Mapping[str, Bound] = MappingProxyType(
    {
        "steps": Range(1, 1e6),
        "sampling_rate": Range(0, 1, above=True),
        "batch_size": Range(0, 1e6, above=True),
        "optimizer": ("adam", "sgd"),
        "momentum": Range(0, 1, below=True),
        "seed": Range(0, 2**63),
        "proximal": Range(0, 1e6),
    }
)


@dataclass(frozen=True)
class GuardSpec:
    """A guard's name and its public settings."""

    name: str
    settings: tuple[tuple[str, float | str], ...] = ()

    def value(self, name: str) -> float | str:
        """One setting."""
        return dict(self.settings)[name]

    def faults(self) -> list[str]:
        """Settings that no configuration could have given, one line each: missing, unknown, out of bounds."""
        told = dict(self.settings)
        wanted = [key for key in ContinualConfig.model_fields if key.startswith(f"{self.name}_")]
        faults = [
            f"guard {self.name}: {key} is missing" for key in wanted if key.removeprefix(f"{self.name}_") not in told
        ]
        plain = {f"{self.name}_{key}": _whole(value) for key, value in told.items()}
        try:
            ContinualConfig.model_validate({"guards": [self.name], **plain})
        except pydantic.ValidationError as error:
            faults += [f"guard {printable(self.name)}: {error.error_count()} setting(s) are unknown or out of bounds"]
        return faults


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

    def faults(self) -> list[str]:
        """Everything in it that is out of bounds, one line each; what the site allows of the rest is its own policy."""
        found = self.base.faults() + self.adapter.faults() + self.task.faults() + self.train.faults()
        found += [fault for guard in self.guards for fault in guard.faults()]
        if len({guard.name for guard in self.guards}) < len(self.guards):
            found.append("a guard is named twice")
        return found + range_faults(self, _MACHINE)

    def to_json(self) -> str:
        """JSON text; ``from_json`` gives an equal value."""
        return _adapter().dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> WorkSpec:
        """Parse and check types.

        Raises:
            WireError: not JSON, a missing or unknown field, a wrong type, or a value out of its bounds.
            PrivacyError: a privacy plan out of its bounds.
        """
        if len(text) > MOST_TEXT:
            raise WireError(f"a work description of {len(text)} characters, at most {MOST_TEXT}", remedy=_SAME)
        try:
            work = _adapter().validate_json(text)
        except (pydantic.ValidationError, ValueError, RecursionError) as error:
            count = error.error_count() if isinstance(error, pydantic.ValidationError) else 1
            raise WireError(f"the work description has {count} fault(s)", remedy=_SAME) from None
        faults = work.faults()
        if faults:
            listing = "".join(f"\n  * {fault}" for fault in faults[:MOST_FAULTS])
            raise WireError(f"the work description has {len(faults)} fault(s):{listing}", remedy=_SAME)
        return work

    def digest(self) -> str:
        """SHA-256 of the JSON text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def resident(self) -> ResidentSpec:
        """What must be in memory to do it."""
        return ResidentSpec(self.base, self.adapter, self.task.head_size, self.cache_mb)


_MACHINE: Mapping[str, Bound] = MappingProxyType({"cache_mb": Range(0, 1e6), "threads": Range(0, 256)})
MOST_TEXT = 8 * 2**20
"""Longest work description, in characters: a list of 100,000 labels fits."""
MOST_FAULTS = 12
"""Faults that a message lists."""
_SAME = "server and site must run the same version"


def _whole(value: float | str) -> float | int | str:
    """Settings travel as floats; whole numbers are read as such."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


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


@functools.lru_cache(maxsize=1)
def _task_over(resident: Resident, task: TaskSpec) -> Task:
    """Kept for one resident object: another one, even of the same spec, has another adapter attached."""
    check_readable(resident.base, task.max_tokens)
    return build_task(task, resident)


def base_spec(config: RunConfig) -> BaseSpec:
    """The base of a run."""
    model = config.model
    return BaseSpec(model.path, model.revision, model.dtype, model.device, BASE_KIND[config.task.kind])


def work_from(
    config: RunConfig, labels: dict[str, str], trained: tuple[str, ...], plan: PrivacyPlan | None
) -> WorkSpec:
    """The work description of a run. ``labels``: public label -> text; ``trained``: what the rule trains."""
    model, adapter, task, train = config.model, config.adapter, config.task, config.train
    targets = (adapter.targets,) if isinstance(adapter.targets, str) else tuple(adapter.targets)
    return WorkSpec(
        base=base_spec(config),
        adapter=AdapterSpec(adapter.rank, adapter.alpha, targets, adapter.last_layers, trained, config.seed),
        task=TaskSpec(
            task.kind,
            task.head,
            tuple(labels.items()),
            task.scale,
            model.pooling,
            model.max_tokens,
            _among(config, list(labels)),
        ),
        train=TrainSpec(
            train.steps,
            sampling_rate(config),
            train.batch_size,
            train.micro_batch,
            train.optimizer,
            train.momentum,
            config.seed,
            train.proximal,
        ),
        guards=tuple(_guard_spec(name, config) for name in config.continual.guards),
        plan=plan,
        codec=codec_from(config),
        cache_mb=model.cache_mb,
        threads=model.threads,
    )


def _among(config: RunConfig, labels: list[str]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """For each stage whose task is known at scoring, the labels that can be the answer."""
    found = ((stage.name, answers(config, stage, labels)) for stage in config.stage)
    return tuple((name, tuple(kept)) for name, kept in found if kept is not None)


def _guard_spec(name: str, config: RunConfig) -> GuardSpec:
    """A guard's settings: every ``continual.<name>_<setting>``."""
    found = {key: value for key, value in config.continual.model_dump().items() if key.startswith(f"{name}_")}
    plain = {key.removeprefix(f"{name}_"): v if isinstance(v, str) else float(v) for key, v in sorted(found.items())}
    return GuardSpec(name, tuple(plain.items()))


def codec_from(config: RunConfig) -> CodecSpec:
    """How updates travel up."""
    told = config.compression
    return CodecSpec(told.up, told.block, told.share, told.feedback)


def plan_from(config: RunConfig, noise_multiplier: float, score_noise: float) -> PrivacyPlan | None:
    """The frozen privacy plan of a run; None with privacy off.

    With unit ``site`` a round is one release: every site is in it, and at least ``sites.minimum`` make it.
    """
    privacy, train = config.privacy, config.train
    if not privacy.enabled:
        return None
    central = privacy.unit == "site"
    return PrivacyPlan(
        unit=privacy.unit,
        sampling_rate=1.0 if central else sampling_rate(config),
        noise_multiplier=noise_multiplier,
        clip_norm=privacy.clip_norm,
        steps_per_round=1 if central else train.steps,
        divisor=float(config.sites.minimum) if central else train.batch_size,
        delta=privacy.delta,
        records_per_unit=privacy.records_per_person if privacy.unit == "person" else 1,
        stages=privacy.stages,
        score_noise=score_noise,
        rehearsal="earlier" if "rehearsal" in config.continual.guards else "none",
    )


def inference(spec: WorkSpec) -> WorkSpec:
    """The same work for prediction and scores: no guard, no plan."""
    return replace(spec, guards=(), plan=None)
