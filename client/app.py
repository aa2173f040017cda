"""The ClientApp: message -> typed task -> work -> reply. Runs on the premises of the data holder.

Every exception becomes a coded, data-free refusal. The site's own log gets the text of our own errors (it never quotes
a record), and of any other exception only its type and place: a library may quote what it was given.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from client import outbox, rehearsal
from client.dataset import Kept, SiteRecords, has_records, site_records
from client.rounds import play_round, play_scores, stays
from client.site import Site, read_site
from client.training import LocalResult
from llmchain_fl.errors import ConfigError, LlmchainError, WireError
from llmchain_fl.messages import TrainTask
from llmchain_fl.privacy.charges import HELD_OUT, training_group
from llmchain_fl.privacy.ledger import Ledger, NullLedger
from llmchain_fl.privacy.plan import PrivacyPlan
from llmchain_fl.privacy.units import Units
from llmchain_fl.tasks.base import Examples, Task
from llmchain_fl.wire import read_score_task, read_train_task
from llmchain_fl.work import WorkSpec, inference, open_work

log = logging.getLogger("llmchain_fl.client")
PACKAGES = ("client", "llmchain_fl")
Watch = Callable[[Site, TrainTask, LocalResult], None]


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


def do_train(site: Site, task: TrainTask, kept: Kept, watch: Watch | None) -> RecordDict:
    """One round at this site: policy, ledger, records, loop, outbox."""
    work = WorkSpec.from_json(task.work)
    site.check(work)
    ledger = site.ledger(work)
    ledger.acknowledge(task.receipt)
    sealed = outbox.sealed(ledger, task, work.plan)
    if sealed is not None:
        return outbox.release_again(ledger, task, sealed)
    _use_threads(work)
    resident, nlp_task = open_work(work.resident, work.task)
    records = site_records(site, task.stage_name, "train", work, nlp_task, kept)
    resident.focus(task.trains or work.adapter.trained)
    own = {name for name in resident.trained_names if stays(name, task.keeps)}
    missing = set(resident.trained_names) - own - set(task.arrays)
    if missing:
        raise WireError(
            f"{len(missing)} arrays to be trained were not sent", remedy="server and site must run the same version"
        )
    examples, units = _drawn_from(site, ledger, task, work, nlp_task, records, kept)
    seen = None if watch is None else lambda told, result: watch(site, told, result)
    memory = site.memory(task.run) if own else None
    return play_round(site.name, ledger, task, work, nlp_task, examples, units, seen, memory, site.feedback_folder)


def do_score(site: Site, content: RecordDict, kept: Kept) -> RecordDict:
    """Score the given adapter on this site's held-out records, if the policy shares scores."""
    task = read_score_task(content)
    work = WorkSpec.from_json(task.work)
    plan = work.plan
    kind = outbox.check_scores(site, plan)
    site.check_base(work)
    ledger: Ledger = NullLedger()
    if kind == "noised" and plan is not None:
        site.check_plan(plan)
        ledger = site.ledger(work)
        ledger.acknowledge(task.receipt)
        sealed = outbox.sealed(ledger, task, plan)
        if sealed is not None:
            return outbox.noised_scores_again(ledger, task, sealed)
    resident, nlp_task = open_work(inference(work).resident, work.task)
    resident.reset()
    resident.load(task.arrays)
    if task.keeps:
        resident.load(site.memory(task.run).before(task.round + 1))
    found = {
        stage: site_records(site, stage, "held_out", work if kind == "noised" else inference(work), nlp_task, kept)
        for stage in task.stages
        if has_records(site, stage, "held_out")
    }
    for stage, one in found.items():
        one.examples.among = dict(work.task.among).get(stage)
    if kind == "noised" and plan is not None:
        parts = {stage: (part.examples, _members(ledger, plan, HELD_OUT, part)) for stage, part in found.items()}
        return play_scores(ledger, task, plan, nlp_task, parts)
    values = {stage: nlp_task.score(part.examples)[nlp_task.score_name] for stage, part in found.items()}
    return outbox.scores(site, task.round, values)


def _drawn_from(
    site: Site, ledger: Ledger, task: TrainTask, work: WorkSpec, nlp_task: Task, records: SiteRecords, kept: Kept
) -> tuple[Examples, Units]:
    """The records of the round and whose they are; with the guard ``rehearsal`` kept units of earlier stages too."""

    def part(stage: str, found: SiteRecords) -> rehearsal.Part:
        return rehearsal.Part(stage, found, _allowed(ledger, work.plan, stage, found))

    current = part(task.stage_name, records)
    share = next((float(guard.value("keep")) for guard in work.guards if guard.name == rehearsal.GUARD), 0.0)
    stages = [stage for stage in task.earlier if share and has_records(site, stage, "train")]
    if not stages:
        return records.examples, records.units.kept(current.allowed)
    earlier = [part(stage, site_records(site, stage, "train", work, nlp_task, kept)) for stage in stages]
    key = ledger.key_for(f"rehearsal/{site.name}")
    return rehearsal.mixed(current, earlier, [rehearsal.chosen(key, task.run, one, share) for one in earlier])


def _allowed(ledger: Ledger, plan: PrivacyPlan | None, stage: str, records: SiteRecords) -> NDArray[np.bool_]:
    """Which units may take part in a round of ``stage``."""
    if plan is None or plan.unit != "person" or not records.names:
        return np.ones(len(records.units), dtype=bool)
    return ledger.admit(training_group(plan, stage), records.names)


def _members(ledger: Ledger, plan: PrivacyPlan | None, group: str, records: SiteRecords) -> Units:
    """The units that may take part in ``group``: those that no other group has.

    Units without names need no register: they are all in one group (``Site.check_plan`` sees to it).
    """
    if plan is None or plan.unit != "person" or not records.names:
        return records.units
    return records.units.kept(ledger.admit(group, records.names))


def make_app(open_site: Callable[[Context], Site] = site_of, watch: Watch | None = None) -> ClientApp:
    """A ClientApp. ``open_site`` finds a node's site; ``watch`` sees local results (simulation only, same process)."""
    app = ClientApp()
    kept: dict[str, Kept] = {}

    def answer(message: Message, context: Context, work: Callable[[Site], RecordDict]) -> Message:
        try:
            content = work(open_site(context))
        except Exception as error:
            log.error("refused: %s", describe(error))
            content = outbox.refuse(error)
        return Message(content, reply_to=message)

    @app.query()
    def hello(message: Message, context: Context) -> Message:
        return answer(message, context, outbox.hello)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return answer(
            message,
            context,
            lambda site: do_train(site, read_train_task(message.content), kept.setdefault(site.name, {}), watch),
        )

    @app.evaluate()
    def score(message: Message, context: Context) -> Message:
        return answer(message, context, lambda site: do_score(site, message.content, kept.setdefault(site.name, {})))

    return app


def describe(error: Exception) -> str:
    """What the site's log may say about ``error``: our own words, or type and innermost place in our code."""
    if isinstance(error, LlmchainError):
        return f"{error.code}: {error}"
    places = [
        f"{'/'.join(Path(frame.f_code.co_filename).parts[-2:])}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] in PACKAGES
    ]
    return f"{type(error).__name__} at {places[-1] if places else 'an unknown place'}"


def _use_threads(work: WorkSpec) -> None:
    if work.threads and torch.get_num_threads() != work.threads:
        torch.set_num_threads(work.threads)


app = make_app()
