"""Whether the parts of a run go together: one checker over what each declares, which says why not in plain words.

    guard "ema" averages LoRA factors, but rule "flora" re-factorises them every round, so they cannot be averaged

No part is asked for its name: a rule, a guard or a robust step of another package is judged like those of this project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmchain_fl.aggregation import DEFAULT, RULES
from llmchain_fl.aggregation.lockstep import lacks
from llmchain_fl.aggregation.rule import CORE, Rule
from llmchain_fl.core.adapter.variants import LORA, VARIANTS
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.guards import GUARDS

if TYPE_CHECKING:
    from llmchain_fl.core.guards.site_guard import SiteGuard
    from llmchain_fl.guards.guard import Guard, GuardSettings


@dataclass(frozen=True)
class Parts:
    """What a run is put together from, as far as its parts depend on each other.

    Attributes:
        rule: the aggregation rule.
        guards: each with its settings, in order.
        optimizer: ``aggregation.optimizer``.
        robust_check: refuses the rule for a robust step (``Robust.check``); None without one.
        central: whether the server adds the noise (``privacy.unit = "site"``).
        personal_head: whether each site keeps a head of its own.
        trained_head: whether a head is trained at all.
        held_out: whether sites keep records for scores of their own.
        play: ``stream.play``.
        public: whether ``continual.public`` (or every stage's own) names records.
        by_stage: whether these belong to stages.
        any_text: whether any text is a record of the task, with or without an answer.
        generates: whether the task's model writes records.
        probed: stage -> whether ``data.dev`` has records of it.
        apart: whether these are others than the test set.
        lockstep: whether sites send gradients and the server takes the step.
        masked: whether the server learns the sum of the updates only.
        shared: whether the sites share the noise of that sum.
        labelled: whether the task has a label list.
        own_labels: stage -> how many labels it names; 0: it keeps all.
        variant: ``adapter.variant``, of which the rule was made.
        pissa: whether the adapter starts from the singular directions of the base.
        own_shapes: whether sites have ranks or alphas of their own.
    """

    rule: Rule
    guards: tuple[tuple[Guard, GuardSettings], ...] = ()
    optimizer: str = "none"
    robust_check: Callable[[Rule], None] | None = None
    central: bool = False
    personal_head: bool = False
    trained_head: bool = False
    held_out: bool = True
    play: str = "sequence"
    public: bool = False
    by_stage: bool = True
    any_text: bool = False
    generates: bool = False
    probed: Mapping[str, bool] | None = None
    apart: bool = True
    lockstep: bool = False
    masked: bool = False
    shared: bool = False
    labelled: bool = True
    own_labels: Mapping[str, int] = field(default_factory=dict)
    variant: str = LORA
    pissa: bool = False
    own_shapes: bool = False


def faults(parts: Parts) -> list[str]:
    """Everything that does not go together, one line each."""
    checks = (
        _variant,
        _start,
        _rule,
        _head,
        _needs,
        _settings,
        _records,
        _stages,
        _optimizer,
        _order,
        _pairs,
        _probes,
        _lockstep,
        _masked,
    )
    return [fault for check in (*checks, _labels) for fault in check(parts)]


def _variant(parts: Parts) -> Iterator[str]:
    """

    | a variant without a product, and | fault |
    |---|---|
    | a rule that moves factors | yes, and the rules that fit |
    | a robust step | yes: it screens changes of the product |
    | ranks or alphas of single sites | yes: they are a pair of factors' |
    | the start from singular directions | yes |
    """
    if VARIANTS[parts.variant].product:
        return
    key = f'adapter.variant = "{parts.variant}"'
    if parts.rule.factors:
        fit = ", ".join(f'"{name}"' for name, rule in RULES.items() if rule.any_variant)
        yield f'{key} has no pair of factors, but rule "{parts.rule.name}" averages factors: use {fit}'
    if parts.robust_check is not None:
        yield f"{key} has no product of factors, but aggregation.robust screens changes of it"
    if parts.own_shapes:
        yield f"{key} has one shape for all sites: leave adapter.site_ranks and adapter.site_alphas empty"
    if parts.pissa:
        yield f'adapter.start = "pissa" is the start of a pair of factors, which {key} does not have'


def _start(parts: Parts) -> Iterator[str]:
    """

    | the start from singular directions, and | fault |
    |---|---|
    | a rule that makes factors anew, trains a core, writes the fold, keeps factors at the sites, or trains none | yes |
    | sites of other ranks | yes: their factors would be other ones |
    | a guard that freezes or makes pairs | yes: the fold is taken |
    """
    if not parts.pissa:
        return
    rule, key = parts.rule, 'adapter.start = "pissa"'
    if not rule.steady or rule.folds or rule.owns or CORE in rule.trained or not rule.trained:
        yield f'{key} needs common factors that stay as they are given: rule "{rule.name}" does not keep or train them'
    if parts.own_shapes:
        yield f"{key} gives all sites the same factors: leave adapter.site_ranks and adapter.site_alphas empty"
    for guard, _ in parts.guards:
        if guard.new_pairs or guard.refactors:
            yield f'{key} has its pair of the base in the fold, and guard "{guard.name}" makes pairs of its own'


def _rule(parts: Parts) -> Iterator[str]:
    """

    | parts | fault |
    |---|---|
    | a server optimizer, and factors that do not keep their coordinates | yes |
    | noise at the server, and a rule that is not linear | yes |
    | noise at the server, and a robust step | yes: the noise covers the sum alone |
    | a robust step, and a rule that moves no factor | yes: it screens changes of the product |
    | a robust step whose ``check`` refuses the rule or the number of replies | its own words |
    """
    rule = parts.rule
    if parts.optimizer != "none" and not rule.steady:
        reason = f'aggregation.optimizer = "{parts.optimizer}" steps along LoRA factors'
        yield f'{reason}, but rule "{rule.name}" {rule.unsteady}'
    if parts.central and not rule.linear:
        yield f'privacy.unit = "site" noises one sum, but rule "{rule.name}" is not linear: it needs more than the sum'
    if parts.robust_check is None:
        return
    if not rule.trained:
        yield f'aggregation.robust screens changes of the product, but rule "{rule.name}" leaves it as it is'
        return
    if parts.central:
        yield 'aggregation.robust looks at each update, but privacy.unit = "site" covers only their sum'
    try:
        parts.robust_check(rule)
    except ConfigError as error:
        yield from error.faults


def _head(parts: Parts) -> Iterator[str]:
    """What stays at the sites: who scores it, and whether it is there at all."""
    if parts.personal_head and not parts.trained_head:
        yield 'aggregation.personal_head needs task.head = "trained": the label-text head has nothing to learn'
    if not (parts.rule.owns or parts.personal_head):
        return
    if not parts.held_out:
        yield "a part of the adapter stays at each site, so only a site can score its model: set sites.held_out above 0"
    if parts.play == "alone":
        yield 'stream.play = "alone" cannot start anew what stays at the sites: use a rule and a head that all share'


def _needs(parts: Parts) -> Iterator[str]:
    """What a guard asks of the rule, and a teacher of the head."""
    for guard, _ in parts.guards:
        for need in guard.needs:
            lacks = need.lacks(parts.rule)
            if lacks:
                yield f'guard "{guard.name}" {need.does}, but rule "{parts.rule.name}" {lacks}; {_fitting(guard)}'
        if guard.teaches and parts.personal_head:
            reason = "aggregation.personal_head keeps each head at its site"
            yield f'guard "{guard.name}" needs a teacher that all share, but {reason}'


def _fitting(guard: Guard) -> str:
    fit = [name for name, rule in RULES.items() if not any(need.lacks(rule) for need in guard.needs)]
    return f"rules that fit: {', '.join(fit) or 'none'}"


def _settings(parts: Parts) -> Iterator[str]:
    """Settings with which a guard makes no sense, or does nothing."""
    for guard, settings in parts.guards:
        idle = [name for name in guard.idle_at_zero if getattr(settings, name) == 0]
        yield from (f"continual.{guard.name}.{name} = 0 makes the guard `{guard.name}` do nothing" for name in idle)
        yield from settings.faults(parts.rule)


def _records(parts: Parts) -> Iterator[str]:
    """

    | records of the guard | needs |
    |---|---|
    | ``public`` | ``continual.public`` |
    | ``public with answers`` | the same, of stages unless any text is a record of the task |
    | ``public by stage`` | the same, of stages |
    | ``generated`` | a task whose model writes records |
    """
    for guard, settings in parts.guards:
        kind, name = settings.records, f'guard "{guard.name}"'
        if kind.startswith("public") and not parts.public:
            yield f"{name} uses public records with these settings: set continual.public"
        elif not parts.by_stage and kind in ("public by stage", *(() if parts.any_text else ("public with answers",))):
            yield f"{name} needs public records of each stage: continual.public_stages = false"
        if kind == "generated" and not parts.generates:
            yield f"{name} trains on texts that the model writes, but the model of this task.kind writes no records"


def _stages(parts: Parts) -> Iterator[str]:
    """Guards of what is left behind, in a stream that leaves nothing behind."""
    for guard, _ in parts.guards:
        if guard.stages == "earlier" and parts.play != "sequence":
            yield f'guard "{guard.name}" keeps what earlier stages taught, but stream.play = "{parts.play}" has none'
        if guard.stages == "ended" and parts.play == "joint":
            yield f'guard "{guard.name}" acts at the end of a stage, but stream.play = "joint" has none'


def _optimizer(parts: Parts) -> Iterator[str]:
    """New factors between two steps of a server optimizer."""
    if parts.optimizer == "none" or parts.rule.moves_one:
        return
    for guard, _ in parts.guards:
        if guard.refactors:
            reason = f'aggregation.optimizer = "{parts.optimizer}" steps along the old ones'
            yield f'guard "{guard.name}" makes new factors, but {reason}: choose one, or a rule that moves one factor'


def _order(parts: Parts) -> Iterator[str]:
    """Who must come before whom."""
    guards = [guard for guard, _ in parts.guards]
    for place, guard in enumerate(guards):
        if guard.holds_start:
            later = [other.name for other in guards[place + 1 :] if other.mixes]
            yield from (
                f'guard "{guard.name}" holds on to what a stage starts from, and guard "{name}" after it changes that: '
                f'put "{name}" before it'
                for name in later
            )
        if guard.chooses_pairs and not any(other.marks_pairs for other in guards[:place]):
            able = " or ".join(f'"{name}"' for name, other in GUARDS.items() if other.marks_pairs)
            yield f'guard "{guard.name}" chooses among frozen pairs: put {able} before it in continual.guards'


def _pairs(parts: Parts) -> Iterator[str]:
    """A pair of its own for each stage, and a mixture of all stages in one pair."""
    guards = [guard for guard, _ in parts.guards]
    owners = [guard for guard in guards if guard.new_pairs]
    for guard in owners:
        for other in (other for other in guards if other.mixes):
            clash = f'guard "{guard.name}" keeps the pairs of stages apart, but guard "{other.name}" mixes them'
            yield f"{clash}: they exclude each other"
    if len(owners) > 1:
        named = " and ".join(f'"{guard.name}"' for guard in owners)
        yield f"guards {named} exclude each other: each makes the pairs of the stages"


def _probes(parts: Parts) -> Iterator[str]:
    """What decides by public scores must have some of every stage, and not those that the run is judged by."""
    for guard in (guard for guard, _ in parts.guards if guard.probes):
        name = f'guard "{guard.name}"'
        for stage in (stage for stage, there in (parts.probed or {}).items() if not there):
            yield f'{name} has no public records for stage "{stage}" to probe: give data.dev records of every stage'
        if not parts.apart:
            yield f"{name} would choose by the test set: set data.dev to public records kept apart from it"


def _lockstep(parts: Parts) -> Iterator[str]:
    """

    | parts | fault |
    |---|---|
    | a rule that moves more than one factor, or keeps some at the sites | yes |
    | a head of each site's own | yes: nobody would take its step |
    | a server optimizer, a robust step | yes: one optimizer steps; updates are directions, not adapters |
    | a guard that turns or pulls back the steps of a site | yes: a site takes none |
    """
    if not parts.lockstep:
        return
    key = 'train.method = "lockstep"'
    if lacks(parts.rule):
        yield f'{key} steps along one shared factor, but rule "{parts.rule.name}" {lacks(parts.rule)}: use "{DEFAULT}"'
    if parts.personal_head:
        yield f"{key} takes the step at the server, but aggregation.personal_head keeps each head at its site"
    if parts.optimizer != "none":
        yield f'{key} has its optimiser in [train]: set aggregation.optimizer = "none"'
    if parts.robust_check is not None:
        yield f"{key} sums gradients, but aggregation.robust screens adapters"
    for guard, _ in parts.guards:
        if guard.site is not None and _moves_steps(guard.site):
            yield f'guard "{guard.name}" acts on the steps of a site, but with {key} the server takes them'


def _labels(parts: Parts) -> Iterator[str]:
    """

    | a guard asks which labels are of which stage, and | fault |
    |---|---|
    | the task has none | yes |
    | a stage names none | yes |
    | a stage names one, and is played by itself | yes: there is nothing to tell it apart from |
    """
    for guard in (guard for guard, _ in parts.guards if guard.asks_labels):
        name = f'guard "{guard.name}"'
        if not parts.labelled:
            yield f"{name} trains over the labels of each stage, but this task.kind has no labels"
            continue
        for stage in (stage for stage, count in parts.own_labels.items() if count == 0):
            yield f'{name} asks which labels are of stage "{stage}": set labels in that [[stage]] table'
        for stage in (stage for stage, count in parts.own_labels.items() if count == 1 and parts.play != "joint"):
            yield f'{name} has nothing to tell the one label of stage "{stage}" apart from: give the stage another one'


def _masked(parts: Parts) -> Iterator[str]:
    """

    | parts | fault |
    |---|---|
    | masked updates, and a rule that is not linear or keeps a part at the sites | yes: there is one mean for all |
    | masked updates, and a robust step | yes: it looks at each |
    | masked updates, and a head of each site's own | yes |
    | shared noise, and a guard that adds a gradient after the noise | yes: the integers are closed by then |
    """
    if not parts.masked:
        return
    rule, key = parts.rule, "secure.sum"
    if not rule.linear or rule.owns:
        yield f'{key} opens one mean, but rule "{rule.name}" is not linear, or keeps a part of it at the sites'
    if parts.robust_check is not None:
        yield f"{key} hides each update, but aggregation.robust screens them"
    if parts.personal_head:
        yield f"{key} opens one mean for all, but aggregation.personal_head keeps each head at its site"
    for guard, _ in parts.guards:
        if parts.shared and guard.site is not None and _overrides(guard.site, "penalty"):
            told_noise = 'privacy.noise = "sum" closes the integers with the noise'
            yield f'guard "{guard.name}" adds a gradient after the noise, but {told_noise}'


def _moves_steps(half: type[SiteGuard]) -> bool:
    """Whether a guard acts on the steps of a site, so that it has nothing to act on where the server takes them."""
    return _overrides(half, "steer", "pull")


def _overrides(half: type[SiteGuard], *hooks: str) -> bool:
    from llmchain_fl.core.guards.site_guard import SiteGuard  # brings torch, which a run without guards is read without

    return any(getattr(half, hook) is not getattr(SiteGuard, hook) for hook in hooks)
