"""Settings that are right one by one and wrong together."""

from __future__ import annotations

from collections.abc import Callable

from llmchain_fl.aggregation import HEAD_ONLY, RULES
from llmchain_fl.aggregation.rule import Rule
from llmchain_fl.config.closed_form_faults import closed_form_faults
from llmchain_fl.config.schema import PISSA, RunConfig
from llmchain_fl.config.secure_faults import secure_faults
from llmchain_fl.config.stage_task import stage_task_faults
from llmchain_fl.config.stream_faults import labels_named, stream_faults
from llmchain_fl.core.adapter.variants import VARIANTS
from llmchain_fl.core.methods import CLOSED_FORM, LOCAL, LOCKSTEP
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.guards import MASK
from llmchain_fl.planning.compatible import Parts, faults
from llmchain_fl.robust import ROBUST, RobustSettings


def cross_faults(run: RunConfig) -> list[str]:
    """Faults that no single value shows."""
    sites, weights, privacy, guards = run.sites, run.aggregation.weights, run.privacy, run.continual.guards
    kind = task_kind(run.task.kind)
    checks: list[tuple[bool, str]] = [
        (sites.cohort > sites.count, f"sites.cohort = {sites.cohort} is more than sites.count = {sites.count}"),
        (sites.minimum > (sites.cohort or sites.count),
         f"sites.minimum = {sites.minimum} is more than the sites asked in a round"),
        (sites.partition in ("column", "natural") and not sites.column,
         f'sites.partition = "{sites.partition}" needs sites.column'),
        (run.train.method != LOCAL and run.train.steps != 1,
         f'train.steps = {run.train.steps}: with train.method = "{run.train.method}" a round is one step, set it to 1'),
        (run.train.method != LOCAL and run.train.proximal > 0,
         f'train.proximal acts on local steps: set it to 0 with train.method = "{run.train.method}"'),
        (run.train.method != LOCKSTEP and run.train.average > 0,
         'train.average is of adapters that the server steps to: set it to 0, or train.method = "lockstep"'),
        (run.train.sums > 0 and not _has_label_rounds(run),
         'train.sums starts the rows of a head from sums by label: set it to 0, or train.method = "lockstep", '
         f'aggregation.rule = "{HEAD_ONLY}" and continual.guards = ["{MASK}"]'),
        (run.train.method == LOCKSTEP and bool(weights),
         "aggregation.weights must be empty in lockstep: each unit counts once, wherever it is"),
        (bool(weights) and len(weights) != sites.count,
         f"aggregation.weights has {len(weights)} values for sites.count = {sites.count}"),
        *((bool(values) and len(values) != sites.count,
           f"adapter.{name} has {len(values)} values for sites.count = {sites.count}")
          for name, values in (("site_ranks", run.adapter.site_ranks), ("site_alphas", run.adapter.site_alphas))),
        (privacy.enabled and not privacy.epsilon and not privacy.noise_multiplier,
         "privacy.enabled needs privacy.epsilon (a budget) or privacy.noise_multiplier"),
        (privacy.enabled and privacy.unit == "site" and bool(weights),
         "aggregation.weights must be empty with privacy.unit = \"site\": the noise covers equal weights only"),
        (privacy.enabled and privacy.unit != "person" and privacy.stages == "disjoint",
         "privacy.stages = \"disjoint\" needs privacy.unit = \"person\": only persons can be told apart"),
        (privacy.enabled and privacy.unit == "site" and privacy.noise == "site" and sites.minimum < min(2, sites.count),
         "sites.minimum must be 2 or more with privacy.unit = \"site\": the noise is made for so many sites"),
        (privacy.enabled and run.data.one_record_per_person and privacy.stages == "disjoint",
         "privacy.stages = \"disjoint\" needs records that name persons, so not data.one_record_per_person"),
        (privacy.clip_quantile > 0 and privacy.unit != "site",
         "privacy.clip_quantile needs privacy.unit = \"site\": persons' norms never leave a site"),
        (run.data.one_record_per_person and run.data.made_up_persons > 0,
         "data.one_record_per_person and data.made_up_persons contradict each other"),
        (kind.named and not run.task.labels,
         f"task.labels is empty: {run.task.kind} needs a public label list (never collected from the sites)"),
        (run.task.head == "trained" and run.train.method != CLOSED_FORM and not _has_head(run),
         f'task.head = "trained": {run.task.kind} has no head to train, its adapter is all it trains; leave it out'),
        (run.task.low >= run.task.high, f"task.low = {run.task.low:g} is not below task.high = {run.task.high:g}"),
        (len({s.name for s in run.stage}) != len(run.stage), "two stages have the same name"),
        (len(set(guards)) != len(guards), "continual.guards names a guard twice"),
    ]  # fmt: skip
    faults = [text for wrong, text in checks if wrong]
    for stage in run.stage:
        if not (stage.train or run.data.train):
            faults.append(f'stage "{stage.name}" has no training records: set data.train or the stage\'s train')
    return (
        faults
        + dev_faults(run)
        + secure_faults(run)
        + [*closed_form_faults(run)]
        + stream_faults(run)
        + [*stage_task_faults(run)]
        + part_faults(run)
    )


def _has_label_rounds(run: RunConfig) -> bool:
    """Whether rounds may be sums over labels: each label in a row of the head, of a stage, and nothing else added."""
    heads = run.aggregation.rule == HEAD_ONLY
    return run.train.method == LOCKSTEP and heads and run.continual.guards == [MASK]


def _has_head(run: RunConfig) -> bool:
    """Whether the task, with the head that it names, trains one."""
    return TaskSpec(run.task.kind, run.task.head, (("a", "a"),)).head_size > 0


def dev_faults(run: RunConfig) -> list[str]:
    """Stages without dev records where others have some: after a round either all stages are scored on dev, or none."""
    if run.data.dev or not any(stage.dev for stage in run.stage):
        return []
    return [
        f'stage "{stage.name}" has no dev records, but others have: set data.dev or the stage\'s dev'
        for stage in run.stage
        if not stage.dev
    ]


def part_faults(run: RunConfig) -> list[str]:
    """A rule, guards, a robust step and a head that do not go together."""
    continual, kind = run.continual, task_kind(run.task.kind)
    dev = {stage.name: stage.dev or run.data.dev for stage in run.stage}
    tests = {run.data.test, *(stage.test for stage in run.stage)}
    own_public = all(stage.public for stage in run.stage)
    return faults(
        Parts(
            rule=rule_of(run),
            variant=run.adapter.variant,
            pissa=run.adapter.start == PISSA,
            own_shapes=bool(run.adapter.site_ranks or run.adapter.site_alphas),
            guards=continual.composed,
            optimizer=run.aggregation.optimizer,
            robust_check=_robust_check(run),
            central=run.privacy.enabled and run.privacy.unit == "site",
            personal_head=run.aggregation.personal_head,
            trained_head=TaskSpec(run.task.kind, run.task.head, (("a", "a"),)).trains_head,
            held_out=run.sites.held_out > 0,
            play=run.stream.play,
            public=bool(continual.public) or own_public,
            by_stage=continual.public_stages or own_public or not continual.public,
            any_text=kind.columns == ("text",),
            generates=kind.generates,
            probed={name: bool(source) for name, source in dev.items()},
            apart=any(dev.values()) and not tests & set(dev.values()),
            lockstep=run.train.method == LOCKSTEP,
            masked=run.secure.sum,
            shared=run.privacy.enabled and run.privacy.noise == "sum",
            labelled=kind.labelled,
            own_labels={stage.name: len(labels_named(stage)) for stage in run.stage},
        )
    )


def rule_of(run: RunConfig) -> Rule:
    """The rule of a run, over what its variant trains."""
    return RULES[run.aggregation.rule].of(VARIANTS[run.adapter.variant])


def _robust_check(run: RunConfig) -> Callable[[Rule], None] | None:
    settings = run.aggregation
    if settings.robust == "none":
        return None
    step = ROBUST[settings.robust](RobustSettings(settings.hostile, settings.norm_bound, settings.norm_factor))
    return lambda rule: step.check(run.sites.minimum, rule)
