"""One round at a site, from the ledger's reservation to the reply that leaves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from flwr.app import RecordDict

from client import outbox
from client.training import LocalResult, train_round
from llmchain_fl.continual.guards import SiteGuards
from llmchain_fl.messages import ScoreTask, TrainTask
from llmchain_fl.privacy.ledger import Ledger
from llmchain_fl.privacy.noise import SecureNoise, Uniform
from llmchain_fl.privacy.plan import PrivacyPlan
from llmchain_fl.privacy.sampling import secret_uniform, seeded_uniform
from llmchain_fl.privacy.scores import noised_mean, unit_means
from llmchain_fl.privacy.units import Units
from llmchain_fl.tasks.base import Examples, Task
from llmchain_fl.work import WorkSpec

Watch = Callable[[TrainTask, LocalResult], None]


def play_round(
    site: str,
    ledger: Ledger,
    task: TrainTask,
    work: WorkSpec,
    nlp_task: Task,
    examples: Examples,
    units: Units,
    watch: Watch | None = None,
) -> RecordDict:
    """Reserve -> draw -> train -> seal -> the reply. The one path on which private records become an update.

    Args:
        site: the site's name; only seeds of runs without noise depend on it.
        ledger: pays for the round before anything is computed from records.
        task: what the server sent.
        work: its work description, already checked against the site's policy.
        nlp_task: the task over the resident model.
        examples: the site's records of the stage.
        units: whose they are; a unit that may not take part in this round is not in it.
        watch: sees the local result (simulation, same process).

    Raises:
        BudgetExhausted: the round is not affordable; nothing was spent.
        TrainingError: see ``train_round``; the reservation stays, and pays for a new attempt at the same round.
    """
    plan, spec, resident = work.plan, work.train, nlp_task.resident
    outbox.reserve(ledger, task, plan)
    resident.reset()
    resident.load(task.arrays)
    most = plan.records_per_unit if plan is not None else 1
    batches = units.batches(spec.sampling_rate, spec.steps, most, _draws(plan, spec.seed, site, task.round))
    guards = SiteGuards(work.guards, task.guard_arrays)
    result = train_round(nlp_task, examples, batches, spec, plan, guards, task.lr)
    if watch is not None:
        watch(task, result)
    return outbox.release(ledger, task, plan, result.arrays)


def play_scores(
    ledger: Ledger, task: ScoreTask, plan: PrivacyPlan, nlp_task: Task, held_out: dict[str, tuple[Examples, Units]]
) -> RecordDict:
    """Reserve -> score -> noise -> seal -> the reply: one noised score for each stage that was asked for.

    A stage of which the site has no records gets a score too, made of noise: which stages a site knows stays its own.
    """
    outbox.reserve_scores(ledger, task, plan)
    noise, bound = SecureNoise(), nlp_task.score_bound
    values = {}
    for stage in task.stages:
        means = np.zeros(0)
        if stage in held_out:
            examples, units = held_out[stage]
            means = unit_means(nlp_task.record_scores(examples) / bound, units)
        values[stage] = noised_mean(means, plan.score_noise, noise) * bound
    return outbox.noised_scores(ledger, task, values)


def _draws(plan: PrivacyPlan | None, seed: int, site: str, number: int) -> Uniform:
    """Secret with noise on; the same in every run without (whoever knows the seed knows the batches)."""
    private = plan is not None and plan.is_private and plan.unit != "site"
    return secret_uniform if private else seeded_uniform(seed, site, number)
