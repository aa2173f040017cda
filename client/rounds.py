"""One round at a site, from the ledger's reservation to the reply that leaves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from flwr.app import RecordDict

from client import outbox
from client.memory import Memory
from client.training import LocalResult, train_round
from llmchain_fl.adapter.routing import is_beside
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

log = logging.getLogger("llmchain_fl.client")
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
    memory: Memory | None = None,
    feedback: Path = Path(),
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
        memory: where the trained arrays that stay here (``task.keeps``) come from and go to.
        feedback: folder for what compression left out, where the run remembers it.

    Raises:
        BudgetExhausted: the round is not affordable; nothing was spent.
        TrainingError: see ``train_round``; the reservation stays, and pays for a new attempt at the same round.
    """
    plan, spec, resident = work.plan, work.train, nlp_task.resident
    outbox.reserve(ledger, task, plan)
    resident.reset()
    resident.load(task.arrays)
    resident.load({name: value for name, value in task.guard_arrays.items() if is_beside(name)})
    if memory is not None:
        resident.load(memory.before(task.round))
    most = plan.records_per_unit if plan is not None else 1
    batches = units.batches(spec.sampling_rate, spec.steps, most, _draws(plan, spec.seed, site, task.round))
    guards = SiteGuards(work.guards, task.guard_arrays)
    result = train_round(nlp_task, examples, batches, spec, plan, guards, task.lr)
    if work.guards:
        told = (site, task.round, result.penalty, result.pull)
        log.info("%s, round %d: guards' penalty %.3g of the gradient, pull %.3g of a step", *told)
    if watch is not None:
        watch(task, result)
    leaving = {name: value for name, value in result.arrays.items() if not stays(name, task.keeps)}
    if memory is not None:
        memory.keep(task.round, {name: v for name, v in result.arrays.items() if name not in leaving})
    packing = outbox.Packing(work.codec, _draws(plan, spec.seed, f"{site} codec", task.round), feedback)
    return outbox.release(ledger, task, plan, leaving, packing)


def stays(name: str, keeps: Sequence[str]) -> bool:
    """Whether a trained array stays at the site: ``keeps`` holds endings of factors, and ``head`` for a head."""
    return ("head" if name.startswith("head.") else name.rpartition(".")[2]) in keeps


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
