"""The parts of a run that its configuration names, and all that can be refused before round 1."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.closed_form_rule import ClosedForm
from llmchain_fl.aggregation.lockstep import Late, Lockstep, Rate, Sums
from llmchain_fl.aggregation.optimizers import ServerOptimizer, Settings
from llmchain_fl.aggregation.rule import CORE, Rule
from llmchain_fl.aggregation.singular_start import singular_start
from llmchain_fl.config.schema import PISSA, AggregationConfig, RunConfig
from llmchain_fl.core.adapter.dense import frozen_weight
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.adapter.variants import VARIANTS
from llmchain_fl.core.errors import ConfigError, ModelError
from llmchain_fl.core.methods import CLOSED_FORM, LOCKSTEP
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.core.tasks.random_features import features_version
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.robust import ROBUST, Robust, RobustSettings
from server.handing import shapes, without_head
from server.label_rounds import label_round
from server.quarantine import Quarantine, QuarantineSettings
from server.schedule import late_of, rate_of
from server.scoring import Scorer
from server.state import RunState
from server.upload import upload_faults


def make_rule(config: RunConfig, state: RunState | None = None) -> Rule:
    """The rule, with the server's optimizer around it if the run asks for one.

    ``state``: of the run, which knows when stages have ended; None before there is one.

    Raises:
        ModelError: no optimizer can step along the rule's factors.
    """
    section, train = config.aggregation, config.train
    rule = RULES[section.rule].of(VARIANTS[config.adapter.variant])
    if train.method == CLOSED_FORM:
        return rule  # until the features are known (closed_form_rule)
    if train.method == LOCKSTEP:
        return Lockstep(rule, train.optimizer, train.momentum, *_calendar(config, state or RunState("")))
    if section.optimizer == "none":
        return rule
    settings = Settings(section.optimizer_lr, section.optimizer_beta1, section.optimizer_beta2, section.optimizer_tau)
    return ServerOptimizer(rule, section.optimizer, settings)


def _calendar(config: RunConfig, state: RunState) -> tuple[Rate, Late, Sums]:
    return (
        lambda number: rate_of(config, number, state.ended),
        lambda number: late_of(config, number, state.ended),
        lambda number: label_round(config, list(state.labels), number, state.ended),
    )


def closed_form_rule(work: WorkSpec, scorer: Scorer, start: Arrays) -> ClosedForm:
    """The rule of a run whose heads are computed from sums, over the features of the adapter ``start``.

    Raises:
        ModelError: the task has no trained head over features.
    """
    task, spec = scorer.task, work.task
    if not isinstance(task, Classification) or not spec.head_size:
        raise ModelError('train.method = "closed-form" computes a classifier', remedy='set task.head = "trained"')
    version = features_version(
        f"{work.base.path}@{work.base.revision}", start, spec.pooling, spec.max_tokens, task.random
    )
    return ClosedForm(task.random, spec.head_size, version, spec.scale, task.label_vectors.double().cpu().numpy())


def make_quarantine(config: RunConfig) -> Quarantine:
    """Who may be asked: sites that fail again and again are set aside."""
    sites = config.sites
    return Quarantine(QuarantineSettings(sites.quarantine_after, sites.quarantine_rounds, sites.minimum))


def make_robust(config: AggregationConfig) -> Robust | None:
    """The robust step between admission and the rule; None without one."""
    if config.robust == "none":
        return None
    return ROBUST[config.robust](RobustSettings(config.hostile, config.norm_bound, config.norm_factor))


def _check_start(config: RunConfig, rule: Rule, start: Arrays) -> None:
    """Refuse, before round 1, sites or an adapter that rule and guards cannot take.

    Raises:
        ModelError: see above.
    """
    for guard, _ in config.continual.composed:
        guard.server.check(start, len(config.stage))
    width = len(str(config.sites.count))  # the names are not known yet, but their order is
    rule.check(start, shapes([f"number {i + 1:0{width}d}" for i in range(config.sites.count)], config.adapter))


def start_arrays(config: RunConfig, work: WorkSpec, rule: Rule, scorer: Scorer) -> Arrays:
    """The start of the adapter, as the rule wants it.

    Raises:
        ConfigError, ModelError: settings or sites that the rule cannot take.
    """
    fresh = {name: array for name, array in scorer.full({}).items() if not name.endswith(f".{CORE}")}
    if config.adapter.start == PISSA:
        fresh = singular_start(fresh, work.adapter.scale, partial(frozen_weight, scorer.resident))
    else:
        fresh |= earlier_adapter(config, fresh)
    _check_start(config, rule, fresh)
    arrays = dict(rule.begin(fresh, work.adapter.scale, partial(frozen_weight, scorer.resident)))
    faults = upload_faults(config, rule, arrays)
    if faults:
        raise ConfigError(faults)
    return without_head(arrays) if config.aggregation.personal_head else arrays


def earlier_adapter(config: RunConfig, fresh: Arrays) -> Arrays:
    """The adapter that the run goes on from (``adapter.start``); nothing without one.

    Raises:
        ModelError: it is no adapter, or of other modules, rank, scale or labels.
    """
    if not config.adapter.start:
        return {}
    work, arrays = read_adapter(Path(config.adapter.start))
    if config.train.method == CLOSED_FORM:  # its head is computed, whatever the earlier one was
        fresh, arrays = without_head(dict(fresh)), without_head(arrays)
    adapter = config.adapter
    same = {n: a.shape for n, a in arrays.items()} == {n: a.shape for n, a in fresh.items()}
    if not same or work.adapter.scale != adapter.folded(adapter.alpha, adapter.rank) / adapter.rank:
        message = f"adapter.start = {config.adapter.start}: rank {work.adapter.rank}, alpha {work.adapter.alpha:g}"
        raise ModelError(
            message, remedy="start from an adapter of the same base, variant, targets, rank, alpha and labels"
        )
    return arrays
