"""What the gate plays through a whole site: a run's own work description, or a table of small ones.

What a run trains with decides which code a private record passes through: optimiser, guards, codec, memory, number of
steps and of trained values, head, base. So the gate plays these very settings and changes only sizes: clip norm,
learning rate and the strength of guards are set such that the noise can be read from the update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.adapter.value import AdapterSpec, Arrays
from llmchain_fl.core.adapter.variants import LORA, VARIANTS
from llmchain_fl.core.base_model import BaseSpec
from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.guards import site_half
from llmchain_fl.core.guards.agem import AgemSite
from llmchain_fl.core.guards.anchor import AnchorSite
from llmchain_fl.core.guards.distill import DistillSite
from llmchain_fl.core.guards.olora import OloraSite
from llmchain_fl.core.guards.rehearsal import RehearsalSite
from llmchain_fl.core.guards.replay import ReplaySite
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.methods import LOCAL, LOCKSTEP
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import GuardSpec, TrainSpec, WorkSpec, open_work
from llmchain_fl.privacy.plan_file import saved_plan
from simulations.audit.own_guards import STAGES, guard_arrays
from simulations.audit.tiny_base import LABELS, WIDE, tiny_base
from simulations.guard_specs import spec_of

MAX_TOKENS = 24
"""Of the small settings: texts are padded to 8, 16 or 24 tokens."""
FIRST, SECOND = STAGES
"""Names of the stages; the earlier one and the one that is trained where there are two."""


@dataclass(frozen=True)
class Setting:
    """A configuration as a site is asked to play it.

    Attributes:
        work: the work description.
        trains: factors that the round trains; empty: all that the work describes.
        keeps: trained factors that stay at the site.
        again: whether the stage before is rehearsed.
        zero: the adapter that is sent is all zeros, so that the update is made of the step's own digits.
        sums: the round asks for sums over each label's records (``client/class_sums.py``).
        shared: the run's plan where its sites share the noise; ``work`` has one then with the whole noise at each.
        name: in the findings.
    """

    work: WorkSpec
    trains: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    again: bool = False
    zero: bool = False
    sums: bool = False
    shared: PrivacyPlan | None = None
    name: str = "own run"

    @property
    def plan(self) -> PrivacyPlan:
        """The work's plan.

        Raises:
            ValueError: it has none, so that there is nothing to check.
        """
        if self.work.plan is None:
            raise ValueError("a setting without privacy")
        return self.work.plan

    def task(
        self,
        number: int,
        lr: float,
        arrays: Arrays | None = None,
        *,
        stage: str = SECOND,
        earlier: tuple[str, ...] | None = None,
        receipt: str = "",
        clip: float = 0.0,
    ) -> TrainTask:
        """What the server sends in round ``number``."""
        return TrainTask(
            "gate",
            number,
            1,
            stage,
            lr,
            self.work.to_json(),
            self.arrays() if arrays is None else arrays,
            guard_arrays(self.work),
            receipt,
            "gate",
            clip=clip,
            trains=self.trains,
            keeps=self.keeps,
            earlier=((FIRST,) if self.again else ()) if earlier is None else earlier,
            sums=self.sums,
        )

    def resident(self) -> Resident:
        """The model, focused on what the round trains."""
        resident = open_work(self.work.resident, self.work.task)[0]
        resident.focus(self.trains or self.work.adapter.trained)
        return resident

    def arrays(self) -> Arrays:
        """The adapter that is sent: the start, or zeros."""
        resident = self.resident()
        start = {name: value for name, value in resident.fresh().items() if name in resident.trained_names}
        return {name: value * 0 for name, value in start.items()} if self.zero else start


def of_run(
    work: WorkSpec, trains: tuple[str, ...] = (), keeps: tuple[str, ...] = (), *, sums: bool = False
) -> tuple[Setting, ...]:
    """The settings of a run of one's own: as it is, then what else has to be played to see all of it.

    Its first stage and its last have the names that the gate's files have. Whole sites are played without masks, and
    where noise is shared with the whole noise at each: they pass the records through the same code, and what they send
    can be read. The integers of the run's own plan are looked at by themselves (``gate.checks_of``).

    Args:
        work: its work description.
        trains: which factors a round of its rule trains; empty: all that the description names.
        keeps: which of them stay at the sites.
        sums: whether some rounds ask for sums by label.
    """
    again = any(site_half(guard.name).rehearsed(dict(guard.settings)) > 0 for guard in work.guards)
    shared = work.plan if work.plan is not None and work.plan.is_shared else None
    plan = work.plan if shared is None else replace(shared, shares=1, members=1, grid=0)
    plain = replace(work, threads=1, task=_named(work.task), plan=plan, secure=None)
    own = Setting(plain, trains, keeps, again, shared=shared)
    settings = [own]
    if work.codec.name != "none":
        settings.append(replace(own, work=replace(own.work, codec=CodecSpec()), name="own run, not compressed"))
    if sums:
        settings.append(replace(own, sums=True, name="own run, sums by label"))
    return tuple(settings)


def _named(task: TaskSpec) -> TaskSpec:
    """The labels of its first stage and of its last under the names of the gate's own stages."""
    if not task.stage_labels:
        return task
    (_, first), (_, last) = task.stage_labels[0], task.stage_labels[-1]
    return replace(task, stage_labels=((FIRST, first), (SECOND, last)))


def _plan(steps: int, **changes: object) -> PrivacyPlan:
    settings = {
        "sampling_rate": 0.5,
        "noise_multiplier": 2.0,
        "clip_norm": 1.0,
        "steps_per_round": steps,
        "divisor": 8.0,
        "delta": 1e-5,
        "records_per_unit": 32,
    }
    return saved_plan({**PrivacyPlan(**settings).to_dict(), **changes})  # type: ignore[arg-type]


def small(
    *,
    steps: int = 1,
    optimizer: str = "sgd",
    momentum: float = 0.0,
    guards: tuple[GuardSpec, ...] = (),
    codec: CodecSpec | None = None,
    head: str = "label-text",
    dtype: str = "float32",
    proximal: float = 0.0,
    last_layers: int = 0,
    width: int = WIDE,
    variant: str = LORA,
    method: str = LOCAL,
    head_alone: bool = False,
    **plan: object,
) -> WorkSpec:
    """A work description over the tiny base: 13,312 trained values, more with a trained head."""
    privacy = _plan(steps, **plan)
    adapter = AdapterSpec(rank=8, alpha=16.0, last_layers=last_layers, seed=5)
    if head_alone:
        adapter = replace(adapter, trained=())
    elif not VARIANTS[variant].product:
        adapter = replace(adapter, variant=variant, trained=VARIANTS[variant].trained)
    return WorkSpec(
        base=BaseSpec(str(tiny_base(width)), dtype=dtype, device="cpu"),
        adapter=adapter,
        task=TaskSpec("classification", head, LABELS, 20.0, "mean", MAX_TOKENS),
        train=TrainSpec(steps, privacy.sampling_rate, privacy.divisor, 8, optimizer, momentum, 1, proximal, method),
        guards=guards,
        plan=privacy,
        codec=CodecSpec() if codec is None else codec,
        cache_mb=16 if last_layers else 0,
        threads=1,
    )


DISTILL = spec_of(DistillSite, batch=4.0, data="batch", temperature=2.0, weight=1.0)
PUBLIC = spec_of(DistillSite, batch=4.0, data="public", temperature=2.0, weight=1.0)
ANCHOR = spec_of(AnchorSite, strength=1.0)
AGEM = spec_of(AgemSite, batch=4.0, strength=1.0)
REPLAY = spec_of(ReplaySite, batch=4.0, weight=1.0)
OLORA = spec_of(OloraSite, form="squared", strength=1.0)
REHEARSAL = spec_of(RehearsalSite, keep=1.0)
STEPS = 24
"""More than 20."""

SETTINGS: Mapping[str, Callable[[], Setting]] = MappingProxyType(
    {
        "sgd": lambda: Setting(small(steps=STEPS), zero=True),
        "momentum, guards": lambda: Setting(
            small(steps=STEPS, momentum=0.9, guards=(DISTILL, ANCHOR), proximal=0.1),
        ),
        "adam": lambda: Setting(small(steps=STEPS, optimizer="adam", momentum=0.9)),
        "adam, guards": lambda: Setting(
            small(steps=STEPS, optimizer="adam", momentum=0.9, guards=(DISTILL, ANCHOR)),
        ),
        "trained head, public records": lambda: Setting(
            small(steps=4, head="trained", guards=(PUBLIC, AGEM, REPLAY, OLORA)),
        ),
        "top-k, feedback": lambda: Setting(small(steps=2, codec=CodecSpec("top-k", 64, 0.05, feedback=True))),
        "int8": lambda: Setting(small(steps=2, optimizer="adam", codec=CodecSpec("int8"))),
        "personal factor": lambda: Setting(small(steps=4), keeps=("lora_A",)),
        "disjoint, rehearsal": lambda: Setting(
            small(steps=2, guards=(REHEARSAL,), stages="disjoint", rehearsal="earlier"), again=True
        ),
        "sums by label": lambda: Setting(small(head="trained", method=LOCKSTEP, head_alone=True), sums=True),
        "unit record": lambda: Setting(small(steps=2, unit="record", records_per_unit=1)),
    }
)
"""name -> a setting over the tiny base; made when asked for."""


def setting(name: str) -> Setting:
    """One of SETTINGS."""
    return replace(SETTINGS[name](), name=name)
