"""A run's configuration -> the work description that travels to the sites."""

from __future__ import annotations

from dataclasses import replace

from llmchain_fl.config.calendar import sampling_rate
from llmchain_fl.config.schema import RunConfig, StageConfig
from llmchain_fl.config.stage_task import at_stage, kind_at
from llmchain_fl.config.stream import JOINT
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.base_model import BaseSpec
from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.guards.site_guard import SiteGuard
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import GuardSpec, SecureSpec, TrainSpec, WorkSpec
from llmchain_fl.data.stages import answers, stage_labels


def base_spec(config: RunConfig) -> BaseSpec:
    """The base of a run."""
    model = config.model
    return BaseSpec(model.path, model.revision, model.dtype, model.device, task_kind(config.task.kind).base_kind)


def work_from(
    config: RunConfig, labels: dict[str, str], trained: tuple[str, ...], plan: PrivacyPlan | None
) -> WorkSpec:
    """The work description of a run. ``labels``: public label -> text; ``trained``: what the rule trains."""
    model, adapter, task, train = config.model, config.adapter, config.task, config.train
    targets = (adapter.targets,) if isinstance(adapter.targets, str) else tuple(adapter.targets)
    return WorkSpec(
        base=base_spec(config),
        adapter=AdapterSpec(
            adapter.rank,
            adapter.folded(adapter.alpha, adapter.rank),
            targets,
            adapter.last_layers,
            trained,
            config.seed,
            adapter.variant,
        ),
        task=TaskSpec(
            task.kind,
            task.head,
            tuple(labels.items()),
            task.scale,
            model.pooling,
            model.max_tokens,
            _candidate_labels(config, list(labels)),
            labels_by_stage(config, list(labels)),
            task.features,
            config.seed,
            windows_of(config),
            task.low,
            task.high,
            template=task.template,
            instruction=task.instruction,
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
            train.method,
        ),
        guards=tuple(at_site(spec, half) for spec, half in _with_halves(config) if half is not None),
        plan=plan,
        codec=codec_from(config),
        cache_mb=model.cache_mb,
        threads=model.threads,
        secure=secure_from(config),
    )


def work_at(work: WorkSpec, config: RunConfig, stage: StageConfig) -> WorkSpec:
    """The work description of a stage: ``work``, with the task of a stage that has its own."""
    if kind_at(config, stage) == config.task.kind:
        return work
    own = at_stage(config, stage)
    task = replace(
        work.task, kind=own.task.kind, labels=(), candidate_labels=(), stage_labels=(), windows=windows_of(own)
    )
    return replace(work, task=task)


def windows_of(config: RunConfig) -> int:
    """Most rows that a long record is read in: as told, or as usual for the kind of task."""
    return config.task.windows or task_kind(config.task.kind).windows


def _candidate_labels(config: RunConfig, labels: list[str]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """For each stage whose task is known at scoring, the labels that can be the answer."""
    pairs = ((stage.name, answers(config, stage, labels)) for stage in config.stage)
    return tuple((name, tuple(positions)) for name, positions in pairs if positions is not None)


def labels_by_stage(config: RunConfig, labels: list[str]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The labels of each stage that names some, where a guard asks; with ``play = "joint"`` of all stages together."""
    if not any(guard.asks_labels for guard, _ in config.continual.composed):
        return ()
    named = {stage.name: stage_labels(stage, labels) or () for stage in config.stage}
    positions = {name: tuple(map(labels.index, dict.fromkeys(chosen))) for name, chosen in named.items() if chosen}
    if config.stream.play == "joint":
        return ((JOINT, tuple(sorted({position for chosen in positions.values() for position in chosen}))),)
    return tuple(positions.items())


def guard_specs(config: RunConfig) -> tuple[GuardSpec, ...]:
    """The guards of a run, each with all its settings."""
    return tuple(GuardSpec(guard.name, tuple(own.plain().items())) for guard, own in config.continual.composed)


def _with_halves(config: RunConfig) -> list[tuple[GuardSpec, type[SiteGuard] | None]]:
    halves = [guard.site for guard, _ in config.continual.composed]
    return list(zip(guard_specs(config), halves, strict=True))


def at_site(spec: GuardSpec, half: type[SiteGuard]) -> GuardSpec:
    """Only the settings that its half at a site needs."""
    return GuardSpec(spec.name, tuple((key, value) for key, value in spec.settings if key in half.bounds))


def codec_from(config: RunConfig) -> CodecSpec:
    """How updates travel up."""
    settings = config.compression
    return CodecSpec(settings.up, settings.block, settings.share, settings.feedback)


def plan_from(config: RunConfig, noise_multiplier: float, score_noise: float) -> PrivacyPlan | None:
    """The frozen privacy plan of a run; None with privacy off.

    With unit ``site`` a round is one release: every site is in it, and at least ``sites.minimum`` make it.
    """
    privacy, train = config.privacy, config.train
    if not privacy.enabled:
        return None
    central, shared = privacy.unit == "site", privacy.noise == "sum"
    return PrivacyPlan(
        unit=privacy.unit,
        sampling_rate=1.0 if central else sampling_rate(config),
        noise_multiplier=noise_multiplier,
        clip_norm=privacy.clip_norm,
        steps_per_round=1 if central else train.steps,
        divisor=float(config.sites.minimum) if central and not shared else train.batch_size,
        delta=privacy.delta,
        records_per_unit=privacy.records_per_person if privacy.unit == "person" else 1,
        stages=privacy.stages,
        score_noise=score_noise,
        rehearsal="earlier" if config.continual.charged else "none",
        shares=config.survivors if shared else 1,
        members=config.sites.count if shared else 1,
        grid=config.secure.grid if shared else 0,
    )


def secure_from(config: RunConfig) -> SecureSpec | None:
    """The secure sum of a run; None where the server sees each update."""
    settings = config.secure
    return SecureSpec(config.sites.count, config.survivors, settings.largest) if settings.sum else None
