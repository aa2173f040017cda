"""One round at a site, from the ledger's reservation to the reply that leaves. Everything that can fail was tried."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import RecordDict

from client import outbox, trial
from client.dataset import Mask, Part
from client.training import LocalResult, Train
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.guards import SiteGuards
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.methods import CLOSED_FORM, LOCAL, LOCKSTEP
from llmchain_fl.core.plugins import Named
from llmchain_fl.core.privacy.noise import Uniform
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.privacy.release import Ledger, Release
from llmchain_fl.core.privacy.sampling import secret_uniform, seeded_uniform
from llmchain_fl.core.privacy.units import Units
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.work import WorkSpec

if TYPE_CHECKING:
    from client.memory import Memory
    from client.secure_sum import Masking

log = logging.getLogger("llmchain_fl.client")
Watch = Callable[[TrainTask, LocalResult], None]
FEW = 0.5
"""Share of the persons of a stage that may take part, below which the site's log says so."""
SealOf = Callable[[int], str]
"""Round -> SHA-256 of the payload that the ledger sealed for it, "" if none."""


@dataclass(frozen=True)
class Between:
    """What a round takes from earlier ones (``personal``, ``left_out``), where it leaves its own, and its masks."""

    personal: Arrays = field(default_factory=dict)
    left_out: Arrays = field(default_factory=dict)
    personal_file: Memory | None = None
    left_out_file: Memory | None = None
    masking: Masking | None = None


def play_round(
    site: str,
    ledger: Ledger,
    task: TrainTask,
    work: WorkSpec,
    nlp_task: Task,
    parts: Sequence[Part],
    release: Release | None = None,
    watch: Watch | None = None,
    between: Between | None = None,
    loop: Train | None = None,
) -> RecordDict:
    """Reserve -> draw -> train -> seal -> the reply. The one path on which private records become an update.

    ``site``: only seeds of runs without noise depend on it. ``work`` has been checked against the site's policy.
    ``release``: what the ledger books; None in a run without a plan. ``watch``, ``loop``: of a simulation in this
    process, the second in place of what ``train.method`` says.

    Raises:
        BudgetExhausted: the round is not affordable; nothing was spent.
        LlmchainError: in a run without a plan, whatever fails. With one, what fails after the round was paid is sealed
            as a refusal of one code: a second attempt would be a second view of the same records.
    """
    between = Between() if between is None else between
    allowed = _allowed(site, ledger, release, parts)
    try:
        packed = _trained(site, task, work, nlp_task, mixed(parts, allowed), watch, between, loop)
    except Exception as error:
        if work.plan is None:
            raise
        log.error("%s, round %d was paid for and gives no update: %s", site, task.round, outbox.describe(error))
        return outbox.release_refusal(ledger, task)
    return outbox.release(ledger, task, work.plan, packed)


def _trained(
    site: str,
    task: TrainTask,
    work: WorkSpec,
    nlp_task: Task,
    drawn_from: tuple[Examples, Units],
    watch: Watch | None,
    between: Between,
    loop: Train | None,
) -> Mapping[str, Any]:
    """The arrays that leave; what stays is on the disk when it returns."""
    plan, spec, (examples, units) = work.plan, work.train, drawn_from
    trial.load(nlp_task.resident, task, between.personal)
    most = plan.records_per_unit if plan is not None else 1
    drawn = units.batches(spec.sampling_rate, spec.steps, most, _draws(plan, spec.seed, site, task.round))
    batches = ([examples.rows_of(records) for records in batch] for batch in drawn)
    guards = SiteGuards(work.guards, task.guard_arrays, work.task.taught(task.stage_name, task.earlier))
    learn = loop or loop_of(SUMS if task.sums else spec.method)
    result = learn(nlp_task, examples, batches, spec, plan, guards, task.lr)
    _tell(site, task, work, result)
    if watch is not None:
        watch(task, result)
    staying = {name: value for name, value in result.arrays.items() if stays(name, task.keeps)}
    leaving = {name: value for name, value in result.arrays.items() if name not in staying}
    if between.masking is not None:
        return between.masking.masked(task, result, leaving)
    draw = _draws(plan, spec.seed, f"{site} codec", task.round)
    packing = outbox.Packing(work.codec, draw, between.left_out)
    change = leaving if result.direct else outbox.delta(task, leaving)
    packed, left_out = outbox.packed(outbox.bounded(task, plan, change), packing)
    if between.personal_file is not None:
        kept = {**between.personal, **staying}
        between.personal_file.keep(task.round, outbox.payload(packed), between.personal, kept)
    if between.left_out_file is not None:
        between.left_out_file.keep(task.round, outbox.payload(packed), between.left_out, left_out)
    return packed


SUMS = "sums"
LOOPS: Named[Train] = Named(
    {
        LOCAL: "client.local:train_round",
        LOCKSTEP: "client.lockstep:gradient_sum",
        SUMS: "client.class_sums:class_sums",
        CLOSED_FORM: "client.closed_form:head_sums",
    }
)
"""What a site does in a round, by ``train.method``, or by what the task asks for in its place."""
REHEARSAL: Named[Callable[..., tuple[Examples, Units]]] = Named({"mixed": "client.rehearsal:mixed"})
"""Records of several stages as those of one round."""


def mixed(parts: Sequence[Part], allowed: Sequence[Mask]) -> tuple[Examples, Units]:
    """The records of a round, and whose they are; ``allowed``: for each part which units may take part."""
    if len(parts) > 1:
        return REHEARSAL["mixed"](parts, allowed)
    return parts[0].records.examples, parts[0].records.units.kept(parts[0].kept & allowed[0])


def loop_of(method: str) -> Train:
    """The loop of this name."""
    return LOOPS[method]


def stays(name: str, keeps: Sequence[str]) -> bool:
    """Whether a trained array stays at the site: ``keeps`` holds endings of factors, and ``head`` for a head."""
    return ("head" if name.startswith("head.") else name.rpartition(".")[2]) in keeps


def _allowed(site: str, ledger: Ledger, release: Release | None, parts: Sequence[Part]) -> list[Mask]:
    """Pay, and enter who takes part: one line of the ledger. Units without names are everybody's."""
    named = [part for part in parts if part.records.names]
    masks = [] if release is None else ledger.reserve(release, [(part.group, part.records.names) for part in named])
    mask_of = {id(part): mask for part, mask in zip(named, masks, strict=release is not None)}
    allowed = [mask_of.get(id(part), np.ones(len(part.records.units), dtype=np.bool_)) for part in parts]
    here, may = len(allowed[0]), int(allowed[0].sum())
    if here and may < FEW * here:
        text = "%s: %d of %d persons of stage %s may take part: others are of another stage, held out, or out of budget"
        log.warning(text, site, may, here, parts[0].stage)
    return allowed


def _tell(site: str, task: TrainTask, work: WorkSpec, result: LocalResult) -> None:
    if work.guards:
        values = (site, task.round, result.penalty, result.pull)
        log.info("%s, round %d: guards' penalty %.3g of the gradient, pull %.3g of a step", *values)
    if result.unusable > 0:
        log.warning(
            "%s, round %d: %.1f %% of the drawn units could not be computed and counted as zero; the round is paid for",
            *(site, task.round, 100 * result.unusable),
        )


def _draws(plan: PrivacyPlan | None, seed: int, site: str, number: int) -> Uniform:
    """Secret with noise on; the same in every run without (whoever knows the seed knows the batches)."""
    private = plan is not None and plan.is_private and plan.unit != "site"
    return secret_uniform if private else seeded_uniform(seed, site, number)
