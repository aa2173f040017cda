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
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client import audit, check, outbox, trial
from client.dataset import Cache, Part, has_records, site_records
from client.opening import opened, seals_of
from client.outbox import describe
from client.rounds import SUMS, Between, loop_of, play_round, stays
from client.site import Site, memory_file, read_site
from client.steady import Brought
from client.training import LocalResult, Train
from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.errors import ConfigError, TrainingError
from llmchain_fl.core.guards import site_half
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.plugins import Named
from llmchain_fl.core.privacy.charges import training_group
from llmchain_fl.core.privacy.groups import EVERYBODY, site_group
from llmchain_fl.core.privacy.release import Ledger
from llmchain_fl.core.tasks.base import Task
from llmchain_fl.core.wire import read_train_task
from llmchain_fl.core.work import WorkSpec

log = logging.getLogger("llmchain_fl.client")
Watch = Callable[[Site, TrainTask, LocalResult], None]
SECURE: Named[Callable[..., Any]] = Named(
    {"masking": "client.secure_sum:masking", "answer": "client.secure_sum:answer"}
)
"""This site's part in secure sums; imported when a task asks for one."""
SCORE: Named[Callable[[Site, RecordDict, Cache], RecordDict]] = Named({"score": "client.scores:do_score"})
"""Scores on held-out records; imported when a server asks for some."""
REHEARSAL: Named[Callable[..., Any]] = Named({"chosen": "client.rehearsal:chosen"})
"""Who of an earlier stage is kept; imported when a guard draws them again."""
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


def do_train(site: Site, task: TrainTask, cached: Cache, watch: Watch | None, loop: Train | None = None) -> RecordDict:
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
    if memory_file(Path(site.state), task.run, STOPPED).exists():
        raise TrainingError("the site has stopped this run: see its log", remedy="set limits.stop_unusable")
    masking = None if work.secure is None else SECURE["masking"](site, task, work)
    brought = Brought(task.arrays, task.guard_arrays, work.guards)
    nlp_task, shape, micro = opened(site, work, task.trains or work.adapter.trained, brought)
    between = replace(_between(site, ledger, task, work, nlp_task.resident), masking=masking)
    if plan is not None:
        trial.try_out(task, work, nlp_task, between.personal, shape, loop_of(SUMS if task.sums else work.train.method))
    parts = _parts(site, ledger, task, work, nlp_task, cached)
    for part in parts:
        part.records.examples.fix(shape)
    work = replace(work, train=replace(work.train, micro_batch=micro))

    def seen(round_task: TrainTask, result: LocalResult) -> None:
        if site.limits.stop_unusable and result.unusable > site.limits.stop_unusable:
            log.error("%s stops this run: too many units cannot be computed", site.name)
            site.memory(task.run, STOPPED).keep(round_task.round, b"", {}, {})
        if watch is not None:
            watch(site, round_task, result)

    return play_round(site.name, ledger, task, work, nlp_task, parts, release, seen, between, loop)


def _between(site: Site, ledger: Ledger, task: TrainTask, work: WorkSpec, resident: Resident) -> Between:
    """What the round takes from earlier ones, checked against what it trains.

    Raises:
        WireError: arrays to be trained that neither came nor stay here.
        RunError, ModelError: what is kept is damaged or of other shapes.
    """
    own = {name for name in resident.trained_names if stays(name, task.keeps)}
    check.missing([name for name in resident.trained_names if name not in own], task.arrays)
    seals = seals_of(ledger, work.plan, task.run)
    personal = site.memory(task.run) if own else None
    stored = {} if personal is None else personal.fitting(task.round, seals, resident.shapes)
    feedback = site.memory(task.run, "feedback") if work.codec.feedback else None
    left_out = {} if feedback is None else feedback.fitting(task.round, seals, resident.shapes)
    return Between(stored, left_out, personal, feedback)


def _parts(site: Site, ledger: Ledger, task: TrainTask, work: WorkSpec, nlp_task: Task, cached: Cache) -> list[Part]:
    """The records of the round's stage, and with the guard ``rehearsal`` kept units of earlier stages."""
    plan, stages = work.plan, [task.stage_name]
    share = max((site_half(guard.name).rehearsed(dict(guard.settings)) for guard in work.guards), default=0.0)
    stages += [stage for stage in task.earlier if share and has_records(site, stage, "train")]
    key = ledger.key_for(f"rehearsal/{site.name}") if len(stages) > 1 else b""
    run = "" if plan is None else task.run  # without privacy a run is repeatable
    parts = []
    for stage in stages:
        records = site_records(site, stage, "train", work, nlp_task, cached)
        whole = np.ones(len(records.units), dtype=bool)
        takes = whole if stage == task.stage_name else REHEARSAL["chosen"](key, run, stage, records, share)
        group = EVERYBODY if plan is None else site_group(training_group(plan, stage), site.data_set)
        parts.append(Part(stage, group, records, takes))
    return parts


def make_app(
    open_site: Callable[[Context], Site] = site_of, watch: Watch | None = None, loop: Train | None = None
) -> ClientApp:
    """A ClientApp. ``open_site`` finds a node's site. In a simulation in this process, ``watch`` sees local results
    and ``loop`` replaces the local loop."""
    app = ClientApp()
    caches: dict[str, Cache] = {}

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
        def work(site: Site) -> RecordDict:
            return do_train(site, read_train_task(message.content), caches.setdefault(site.name, {}), watch, loop)

        return answer(message, context, work)

    @app.query("secure")
    def secure(message: Message, context: Context) -> Message:
        return answer(message, context, lambda site: outbox.secure_step(SECURE["answer"](site, message.content)))

    @app.evaluate()
    def score(message: Message, context: Context) -> Message:
        return answer(
            message, context, lambda site: SCORE["score"](site, message.content, caches.setdefault(site.name, {}))
        )

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


app = make_app()
