"""Scores on this site's own held-out records; only where its file shares them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from flwr.app import RecordDict

from client import check, outbox
from client.dataset import Cache, SiteRecords, has_records, site_records
from client.opening import opened, seals_of
from client.site import NO_LEDGER, Site
from client.steady import Brought
from llmchain_fl.core.errors import SAME, PrivacyError, WireError
from llmchain_fl.core.plugins import Named
from llmchain_fl.core.privacy.charges import at_site, score_charge
from llmchain_fl.core.privacy.groups import HELD_OUT, site_group
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.release import Ledger, Release
from llmchain_fl.core.privacy.scores import noised_mean, unit_means
from llmchain_fl.core.privacy.units import Units
from llmchain_fl.core.ranges import range_faults
from llmchain_fl.core.score_task import ScoreTask, read_score_task
from llmchain_fl.core.tasks.base import Task
from llmchain_fl.core.work import WorkSpec, inference

log = logging.getLogger("llmchain_fl.client")
COUNTED: Named[Callable[..., float]] = Named({"f1": "llmchain_fl.core.privacy.counts:released_f1"})
"""Scores that are made of counts; imported when a task has them."""


def do_score(site: Site, content: RecordDict, cached: Cache) -> RecordDict:
    """Score the given adapter on this site's held-out records, if the policy shares scores."""
    site.verify()
    task = read_score_task(content)
    work = WorkSpec.from_json(task.work)
    plan, kind = work.plan, check_scores(site, work.plan)
    check.check_base(site, work)
    check_score(site, task)
    ledger: Ledger = NO_LEDGER["ledger"]()
    if kind == "noised" and plan is not None:
        check.check_plan(site, plan)
        ledger = site.ledger(work)
        ledger.acknowledge(task.receipt)
        sealed = ledger.sealed(task.key)
        if sealed is not None:
            return outbox.noised_scores_again(ledger, task, sealed)
        check.check_newest(task.round, ledger.latest(task.run))
        ledger.afford(score_release(site, task, plan))
    plain = inference(work)
    nlp_task, shape, _ = opened(site, work if kind == "noised" else plain, work.adapter.trained, Brought(task.arrays))
    resident = nlp_task.resident
    resident.reset()
    resident.load(task.arrays)
    if task.keeps:
        resident.load(site.memory(task.run).before(task.round + 1, seals_of(ledger, work.plan, task.run)))
    by_stage = {
        stage: site_records(site, stage, "held_out", work if kind == "noised" else plain, nlp_task, cached)
        for stage in task.stages
        if has_records(site, stage, "held_out")
    }
    for stage, one in by_stage.items():
        one.examples.fix(shape)
        one.examples.candidate_labels = dict(work.task.candidate_labels).get(stage)
    if kind == "noised" and plan is not None:
        group = site_group(HELD_OUT, site.data_set)
        held_out = {stage: (group, records) for stage, records in by_stage.items()}
        return play_scores(ledger, task, plan, nlp_task, score_release(site, task, plan), held_out)
    values = {stage: nlp_task.score(part.examples)[nlp_task.metrics[0].name] for stage, part in by_stage.items()}
    return outbox.scores(site, task.round, values)


def check_score(site: Site, task: ScoreTask) -> None:
    """Refuse a task for scores that no server of this version sends, or that asks for more than the site allows.

    Raises:
        WireError: names, numbers or arrays.
    """
    check.check_names(task.run or "none", task.federation, task.stages)
    faults = range_faults(task, {"round": check.NUMBERS["round"]})
    if not task.stages or len(set(task.stages)) < len(task.stages) or not set(task.keeps) <= set(check.ENDINGS):
        faults.append("stages: different ones, at least one")
    if faults:
        raise WireError("the task does not fit: " + "; ".join(faults), remedy=SAME)
    check.check_stages(site, task.stages)
    check.check_arrays(site, task.arrays)


def check_scores(site: Site, plan: PrivacyPlan | None) -> str:
    """How the site shares scores: ``noised`` or ``exact``. Asked before anything is scored.

    Raises:
        PrivacyError: it does not share them, or the run's plan does not pay for noised ones.
    """
    kind = site.limits.scores
    if kind == "none":
        raise PrivacyError("the site does not share scores", remedy='set limits.scores = "noised"')
    if kind == "noised" and (plan is None or not plan.score_noise):
        raise PrivacyError("the site shares noised scores only", remedy="run with privacy on and sites.held_out > 0")
    if kind == "noised" and site.data.one_record_per_person:
        raise PrivacyError(
            "persons kept for scores cannot be told from those trained on where the records name no person",
            remedy='name a column for the person, or set limits.scores = "none"',
        )
    return kind


def score_release(site: Site, task: ScoreTask, plan: PrivacyPlan) -> Release:
    """What noised scores cost: one for each stage asked for, whether or not the site has records of it."""
    charges = at_site([score_charge(plan, len(task.stages))], site.data_set, site.named(plan.unit))
    return Release(task.key, charges, plan.digest(), "scores", task.federation, task.stages[-1])


def play_scores(
    ledger: Ledger,
    task: ScoreTask,
    plan: PrivacyPlan,
    nlp_task: Task,
    release: Release,
    held_out: dict[str, tuple[str, SiteRecords]],
) -> RecordDict:
    """Reserve -> score -> noise -> seal -> the reply: one noised score for each stage that was asked for.

    ``held_out``: stage -> (group that pays, records). A stage of which the site has no records gets a score too, made
    of noise: which stages a site knows stays its own. What fails after the scores were paid is sealed as a refusal.
    """
    named = [(stage, group, one) for stage, (group, one) in held_out.items() if one.names]
    masks = ledger.reserve(release, [(group, one.names) for _, group, one in named])
    allowed = {stage: mask for (stage, _, _), mask in zip(named, masks, strict=True)}
    noise, bound, counted = SecureNoise(), nlp_task.metrics[0].bound, nlp_task.counts
    values = {}
    try:
        for stage in task.stages:
            entry = held_out.get(stage)
            units = Units(()) if entry is None else entry[1].units
            units = units.kept(allowed.get(stage, np.ones(len(units), dtype=np.bool_)))
            if counted:
                counts = np.zeros((0, 3)) if entry is None else nlp_task.record_counts(entry[1].examples)  # type: ignore[attr-defined]
                values[stage] = COUNTED["f1"](counts, units, counted, plan.score_noise, noise)
                continue
            means = np.zeros(0) if entry is None else nlp_task.record_scores(entry[1].examples) / bound
            values[stage] = noised_mean(unit_means(means, units), plan.score_noise, noise) * bound
    except Exception as error:
        log.error("scores of round %d were paid for and give none: %s", task.round, outbox.describe(error))
        return outbox.release_refusal(ledger, task)
    return outbox.noised_scores(ledger, task, values)
