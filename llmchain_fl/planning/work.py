"""A run's configuration -> the work description that travels to the sites."""

from __future__ import annotations

from llmchain_fl.config.calendar import sampling_rate
from llmchain_fl.config.continual import ContinualConfig
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.base_model import BaseSpec
from llmchain_fl.core.compression.codec import CodecSpec
from llmchain_fl.core.guards import SITE_GUARDS
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.tasks.spec import BASE_KIND, TaskSpec
from llmchain_fl.core.work import GuardSpec, TrainSpec, WorkSpec
from llmchain_fl.data.stages import answers


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
        guards=tuple(at_site(spec) for spec in guard_specs(config) if spec.name in SITE_GUARDS),
        plan=plan,
        codec=codec_from(config),
        cache_mb=model.cache_mb,
        threads=model.threads,
    )


def _among(config: RunConfig, labels: list[str]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """For each stage whose task is known at scoring, the labels that can be the answer."""
    found = ((stage.name, answers(config, stage, labels)) for stage in config.stage)
    return tuple((name, tuple(kept)) for name, kept in found if kept is not None)


def guard_specs(config: RunConfig) -> tuple[GuardSpec, ...]:
    """The guards of a run, each with all its settings: every ``continual.<name>_<setting>``."""
    return tuple(_guard_spec(name, config.continual) for name in config.continual.guards)


def with_defaults(spec: GuardSpec) -> GuardSpec:
    """``spec`` with the usual value of every setting that it leaves out."""
    told = {**dict(_guard_spec(spec.name, ContinualConfig()).settings), **dict(spec.settings)}
    return GuardSpec(spec.name, tuple(sorted(told.items())))


def _guard_spec(name: str, continual: ContinualConfig) -> GuardSpec:
    found = {key: value for key, value in continual.model_dump().items() if key.startswith(f"{name}_")}
    plain = {key.removeprefix(f"{name}_"): v if isinstance(v, str) else float(v) for key, v in sorted(found.items())}
    return GuardSpec(name, tuple(plain.items()))


def at_site(spec: GuardSpec) -> GuardSpec:
    """Only the settings that its half at a site needs."""
    bounds = SITE_GUARDS[spec.name].bounds
    return GuardSpec(spec.name, tuple((key, value) for key, value in spec.settings if key in bounds))


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
