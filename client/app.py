"""The ClientApp: message -> typed task -> work -> reply. Runs on the premises of the data holder.

Every exception becomes a coded, data-free refusal; its text goes to the site's own log.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client import outbox
from client.dataset import Kept, site_examples
from client.site import Site, read_site
from client.training import LocalResult, train_round
from llmchain_fl.continual.guards import SiteGuards
from llmchain_fl.errors import ConfigError
from llmchain_fl.privacy.sampling import poisson_batches, secret_uniform, seeded_uniform
from llmchain_fl.wire import TrainTask, read_score_task, read_train_task
from llmchain_fl.work import WorkSpec, inference, open_work

log = logging.getLogger("llmchain_fl.client")
Watch = Callable[[Site, TrainTask, LocalResult], None]


def site_of(context: Context) -> Site:
    """The site of this SuperNode: ``--node-config 'site="/path/site.toml"'``, or file N of ``sites-dir`` in a simulation.

    Raises:
        ConfigError: neither is given.
    """
    named = context.node_config.get("site")
    if named:
        return read_site(Path(str(named)))
    folder = context.run_config.get("sites-dir") or os.environ.get("LLMCHAIN_FL_SITES_DIR")
    if folder and "partition-id" in context.node_config:
        files = sorted(Path(str(folder)).glob("*/site.toml"))
        return read_site(files[int(context.node_config["partition-id"])])
    raise ConfigError(["this SuperNode has no site"], remedy="start it with --node-config 'site=\"/path/to/site.toml\"'")


def do_train(site: Site, task: TrainTask, kept: Kept, watch: Watch | None) -> RecordDict:
    """One round at this site: policy, ledger, records, loop, outbox."""
    work = WorkSpec.from_json(task.work)
    site.check(work)
    ledger = site.ledger(work)
    sealed = outbox.reserve(ledger, task, work)
    if sealed is not None:
        return outbox.release_again(task, sealed)
    _use_threads(work)
    resident, nlp_task = open_work(work.resident, work.task)
    examples = site_examples(site, task.stage_name, "train", work.task, nlp_task, kept)
    resident.reset()
    resident.load(task.arrays)
    spec = work.train
    uniform = secret_uniform if work.plan is not None and work.plan.is_private else seeded_uniform(spec.seed, site.name, task.round)
    batches = poisson_batches(len(examples), spec.sampling_rate, spec.steps, uniform)
    guards = SiteGuards(work.guards, task.guard_arrays)
    result = train_round(nlp_task, examples, batches, spec, work.plan, guards, task.lr)
    if watch is not None:
        watch(site, task, result)
    return outbox.release(ledger, task, work, result.arrays)


def do_score(site: Site, content: RecordDict, kept: Kept) -> RecordDict:
    """Score the given adapter on this site's held-out records."""
    task = read_score_task(content)
    work = inference(WorkSpec.from_json(task.work))
    resident, nlp_task = open_work(work.resident, work.task)
    resident.reset()
    resident.load(task.arrays)
    values = {
        stage: nlp_task.score(site_examples(site, stage, "held_out", work.task, nlp_task, kept))[nlp_task.score_name] for stage in task.stages
    }
    return outbox.scores(site, task.round, values)


def make_app(open_site: Callable[[Context], Site] = site_of, watch: Watch | None = None) -> ClientApp:
    """A ClientApp. ``open_site`` finds the site of a node; ``watch`` sees local results (simulation only, same process)."""
    app = ClientApp()
    kept: dict[str, Kept] = {}

    def answer(message: Message, context: Context, work: Callable[[Site], RecordDict]) -> Message:
        try:
            content = work(open_site(context))
        except Exception as error:
            log.exception("refused")
            content = outbox.refuse(error)
        return Message(content, reply_to=message)

    @app.query()
    def hello(message: Message, context: Context) -> Message:
        return answer(message, context, outbox.hello)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return answer(message, context, lambda site: do_train(site, read_train_task(message.content), kept.setdefault(site.name, {}), watch))

    @app.evaluate()
    def score(message: Message, context: Context) -> Message:
        return answer(message, context, lambda site: do_score(site, message.content, kept.setdefault(site.name, {})))

    return app


def _use_threads(work: WorkSpec) -> None:
    if work.threads and torch.get_num_threads() != work.threads:
        torch.set_num_threads(work.threads)


app = make_app()
