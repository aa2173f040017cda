"""The ClientApp: message -> typed task -> work -> reply. Runs on the premises of the data holder.

Every exception becomes a coded, data-free refusal. The site's own log gets the text of our own errors (it never quotes
a record), and of any other exception only its type and place: a library may quote what it was given.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client import audit, check, outbox, rehearsal, trial
from client.dataset import Kept, has_records, site_records
from client.memory import SealOf
from client.outbox import describe
from client.rounds import LOOPS, Between, play_round, play_scores, stays
from client.site import Site, read_site
from client.steady import Brought, shape_for
from client.training import LocalResult, Train
from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.compression.error_feedback import check_remembered
from llmchain_fl.core.errors import ConfigError, TrainingError
from llmchain_fl.core.guards import site_half
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.plugins import Named
from llmchain_fl.core.privacy.charges import EVERYBODY, HELD_OUT, site_group, training_group
from llmchain_fl.core.privacy.ledger import Ledger, NullLedger
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.tasks.base import Task
from llmchain_fl.core.tasks.passes import Shape
from llmchain_fl.core.wire import read_score_task, read_secure_query, read_train_task
from llmchain_fl.core.work import WorkSpec, inference, open_work

log = logging.getLogger("llmchain_fl.client")
Watch = Callable[[Site, TrainTask, LocalResult], None]
MOST_IN_A_PASS = 1024
"""Records of a pass without privacy, whatever the task wishes, where the site file says nothing."""
SECURE: Named[Callable[..., Any]] = Named(
    {"masking": "client.secure_sum:masking", "answer": "client.secure_sum:answer"}
)
"""This site's part in secure sums; imported when a task asks for one."""
STOPPED = "stopped"
"""Purpose of the note that this site takes part in a run no more."""


def site_of(context: Context) -> Site:
    """The site of this SuperNode: ``--node-config 'site="/path/site.toml"'``; simulated: file N of ``sites-dir``.

    Raises:
        ConfigError: neither is given, or there are fewer sites than nodes.
    """
    named = context.node_config.get("site")
    if named:
        return read_site(Path(str(named)))
    folder = context.run_config.get("sites-dir") or os.environ.get("LLMCHAIN_FL_SITES_DIR")
    if folder and "partition-id" in context.node_config:
        files = sorted(Path(str(folder)).glob("*/site.toml"))
        number = int(context.node_config["partition-id"])
        if number >= len(files):
            raise ConfigError(
                [f"node {number} has no site: there are {len(files)} site files"], remedy="start as many nodes as sites"
            )
        return read_site(files[number])
    raise ConfigError(
        ["this SuperNode has no site"], remedy="start it with --node-config 'site=\"/path/to/site.toml\"'"
    )


def do_train(site: Site, task: TrainTask, kept: Kept, watch: Watch | None, loop: Train | None = None) -> RecordDict:
    """One round at this site: everything that can be judged without a record, then records, ledger, loop, outbox."""
    site.verify()
    work = WorkSpec.from_json(task.work)
    site.check(work)
    check.check_train(site, task)
    check.check_payload(task, work)
    plan, ledger = work.plan, site.ledger(work)
    ledger.acknowledge(task.receipt)
    release = None if plan is None else outbox.training_release(site, task, plan)
    if release is not None:
        sealed = ledger.sealed(task.key)
        if sealed is not None:
            return outbox.release_again(ledger, task, sealed)
        check.check_newest(task.round, ledger.latest(task.run))
        ledger.afford(release)
    stopped = site.memory(task.run, STOPPED)
    if stopped.file.exists():
        raise TrainingError("the site has stopped this run: see its log", remedy="set limits.stop_unusable")
    masking = None if work.secure is None else SECURE["masking"](site, task, work)
    brought = Brought(task.arrays, task.guard_arrays, work.guards)
    nlp_task, shape, micro = _opened(site, work, task.trains or work.adapter.trained, brought)
    between = replace(_between(site, ledger, task, work, nlp_task.resident), masking=masking)
    if plan is not None:
        trial.try_out(task, work, nlp_task, between.personal, shape, LOOPS.get(work.train.method))
    parts = _parts(site, ledger, task, work, nlp_task, kept)
    for part in parts:
        part.records.examples.fix(shape)
    work = replace(work, train=replace(work.train, micro_batch=micro))

    def seen(told: TrainTask, result: LocalResult) -> None:
        if site.limits.stop_unusable and result.unusable > site.limits.stop_unusable:
            log.error("%s stops this run: too many units cannot be computed", site.name)
            stopped.keep(told.round, b"", {}, {})
        if watch is not None:
            watch(site, told, result)

    return play_round(site.name, ledger, task, work, nlp_task, parts, release, seen, between, loop)


def do_score(site: Site, content: RecordDict, kept: Kept) -> RecordDict:
    """Score the given adapter on this site's held-out records, if the policy shares scores."""
    site.verify()
    task = read_score_task(content)
    work = WorkSpec.from_json(task.work)
    plan, kind = work.plan, outbox.check_scores(site, work.plan)
    check.check_base(site, work)
    check.check_score(site, task)
    ledger: Ledger = NullLedger()
    if kind == "noised" and plan is not None:
        check.check_plan(site, plan)
        ledger = site.ledger(work)
        ledger.acknowledge(task.receipt)
        sealed = ledger.sealed(task.key)
        if sealed is not None:
            return outbox.noised_scores_again(ledger, task, sealed)
        check.check_newest(task.round, ledger.latest(task.run))
        ledger.afford(outbox.score_release(site, task, plan))
    plain = inference(work)
    nlp_task, shape, _ = _opened(site, work if kind == "noised" else plain, work.adapter.trained, Brought(task.arrays))
    resident = nlp_task.resident
    resident.reset()
    resident.load(task.arrays)
    if task.keeps:
        resident.load(site.memory(task.run).before(task.round + 1, _seals(ledger, work.plan, task.run)))
    found = {
        stage: site_records(site, stage, "held_out", work if kind == "noised" else plain, nlp_task, kept)
        for stage in task.stages
        if has_records(site, stage, "held_out")
    }
    for stage, one in found.items():
        one.examples.fix(shape)
        one.examples.candidate_labels = dict(work.task.candidate_labels).get(stage)
    if kind == "noised" and plan is not None:
        group = site_group(HELD_OUT, site.data_set)
        held_out = {stage: (group, records) for stage, records in found.items()}
        return play_scores(ledger, task, plan, nlp_task, outbox.score_release(site, task, plan), held_out)
    values = {stage: nlp_task.score(part.examples)[nlp_task.metrics[0].name] for stage, part in found.items()}
    return outbox.scores(site, task.round, values)


def _opened(site: Site, work: WorkSpec, trained: tuple[str, ...], brought: Brought) -> tuple[Task, Shape | None, int]:
    """(the task over the resident model, the shape of private passes, records of a plain pass).

    Raises:
        ModelError: the base cannot be loaded, does not fit, or needs more than the site has.
    """
    _use_threads(work, site.compute.threads)
    micro = max(1, min(work.train.micro_batch, site.compute.micro_batch or MOST_IN_A_PASS))
    private = work.plan is not None and work.plan.unit != "site"
    resident, nlp_task = open_work(work.resident, work.task)
    resident.focus(trained)
    rows = (site.compute.rows or 16) if private else micro
    trial.check_memory(work, resident, rows, site.limits.memory_mb or _machine_mb(), site.limits.max_trained)
    shape = shape_for(resident, nlp_task, work.task.max_tokens, site.compute.rows, brought) if private else None
    return nlp_task, shape, micro


def _between(site: Site, ledger: Ledger, task: TrainTask, work: WorkSpec, resident: Resident) -> Between:
    """What the round takes from earlier ones, checked against what it trains.

    Raises:
        WireError: arrays to be trained that neither came nor stay here.
        RunError, ModelError: what is kept is damaged or of other shapes.
    """
    own = {name for name in resident.trained_names if stays(name, task.keeps)}
    check.missing([name for name in resident.trained_names if name not in own], task.arrays)
    seals = _seals(ledger, work.plan, task.run)
    personal = site.memory(task.run) if own else None
    kept = {} if personal is None else personal.before(task.round, seals)
    check_remembered(kept, resident.shapes)
    feedback = site.memory(task.run, "feedback") if work.codec.feedback else None
    left_out = {} if feedback is None else feedback.before(task.round, seals)
    check_remembered(left_out, resident.shapes)
    return Between(kept, left_out, personal, feedback)


def _seals(ledger: Ledger, plan: PrivacyPlan | None, run: str) -> SealOf | None:
    return None if plan is None else lambda number: ledger.seal_of(f"{run}/{number}")


def _parts(
    site: Site, ledger: Ledger, task: TrainTask, work: WorkSpec, nlp_task: Task, kept: Kept
) -> list[rehearsal.Part]:
    """The records of the round's stage, and with the guard ``rehearsal`` kept units of earlier stages."""
    plan, stages = work.plan, [task.stage_name]
    share = max((site_half(guard.name).rehearsed(dict(guard.settings)) for guard in work.guards), default=0.0)
    stages += [stage for stage in task.earlier if share and has_records(site, stage, "train")]
    key = ledger.key_for(f"rehearsal/{site.name}") if len(stages) > 1 else b""
    found = []
    for stage in stages:
        records = site_records(site, stage, "train", work, nlp_task, kept)
        whole = np.ones(len(records.units), dtype=bool)
        takes = whole if stage == task.stage_name else rehearsal.chosen(key, task.run, stage, records, share)
        group = EVERYBODY if plan is None else site_group(training_group(plan, stage), site.data_set)
        found.append(rehearsal.Part(stage, group, records, takes))
    return found


def make_app(
    open_site: Callable[[Context], Site] = site_of, watch: Watch | None = None, loop: Train | None = None
) -> ClientApp:
    """A ClientApp. ``open_site`` finds a node's site. In a simulation in this process, ``watch`` sees local results
    and ``loop`` replaces the local loop."""
    app = ClientApp()
    kept: dict[str, Kept] = {}

    def answer(message: Message, context: Context, work: Callable[[Site], RecordDict]) -> Message:
        try:
            site = open_site(context)
        except Exception as error:
            return Message(refused(error), reply_to=message)
        return Message(audit.recorded(site, message, lambda: tried(lambda: work(site))), reply_to=message)

    @app.query()
    def hello(message: Message, context: Context) -> Message:
        return answer(message, context, outbox.hello)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return answer(
            message,
            context,
            lambda site: do_train(site, read_train_task(message.content), kept.setdefault(site.name, {}), watch, loop),
        )

    @app.query("secure")
    def secure(message: Message, context: Context) -> Message:
        return answer(
            message,
            context,
            lambda site: outbox.secure_step(SECURE["answer"](site, read_secure_query(message.content))),
        )

    @app.evaluate()
    def score(message: Message, context: Context) -> Message:
        return answer(message, context, lambda site: do_score(site, message.content, kept.setdefault(site.name, {})))

    return app


def tried(work: Callable[[], RecordDict]) -> RecordDict:
    """What ``work`` gives, or a refusal."""
    try:
        return work()
    except Exception as error:
        return refused(error)


def refused(error: Exception) -> RecordDict:
    """A refusal of one code word; the site's own log says why."""
    log.error("refused: %s", describe(error))
    return outbox.refuse(error)


def _use_threads(work: WorkSpec, own: int = 0) -> None:
    """The site's own number of threads, else the task's wish; never more than the machine has. It changes no result."""
    wanted = min(own or work.threads, os.cpu_count() or 1)
    if wanted and torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)


def _machine_mb() -> int:
    """Memory of the machine, MB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


app = make_app()
