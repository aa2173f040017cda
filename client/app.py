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

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client import outbox
from client.dataset import Kept, has_records, site_examples
from client.site import Site, read_site
from client.training import LocalResult, train_round
from llmchain_fl.continual.guards import SiteGuards
from llmchain_fl.errors import ConfigError, LlmchainError, WireError
from llmchain_fl.privacy.sampling import poisson_batches, secret_uniform, seeded_uniform
from llmchain_fl.wire import TrainTask, read_score_task, read_train_task
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
    sealed = outbox.sealed(ledger, task, work)
    if sealed is not None:
        return outbox.release_again(task, sealed)
    _use_threads(work)
    resident, nlp_task = open_work(work.resident, work.task)
    examples = site_examples(site, task.stage_name, "train", work, nlp_task, kept)
    missing = set(resident.trained_names) - set(task.arrays)
    if missing:
        raise WireError(
            f"{len(missing)} arrays to be trained were not sent", remedy="server and site must run the same version"
        )
    outbox.reserve(ledger, task, work)
    resident.reset()
    resident.load(task.arrays)
    spec = work.train
    uniform = (
        secret_uniform
        if work.plan is not None and work.plan.is_private
        else seeded_uniform(spec.seed, site.name, task.round)
    )
    batches = poisson_batches(len(examples), spec.sampling_rate, spec.steps, uniform)
    guards = SiteGuards(work.guards, task.guard_arrays)
    result = train_round(nlp_task, examples, batches, spec, work.plan, guards, task.lr)
    if watch is not None:
        watch(site, task, result)
    return outbox.release(ledger, task, work, result.arrays)


def do_score(site: Site, content: RecordDict, kept: Kept) -> RecordDict:
    """Score the given adapter on this site's held-out records, if the policy shares scores."""
    task = read_score_task(content)
    work = inference(WorkSpec.from_json(task.work))
    outbox.check_scores(site)
    site.check_base(work)
    resident, nlp_task = open_work(work.resident, work.task)
    resident.reset()
    resident.load(task.arrays)
    values = {
        stage: nlp_task.score(site_examples(site, stage, "held_out", work, nlp_task, kept))[nlp_task.score_name]
        for stage in task.stages
        if has_records(site, stage, "held_out")
    }
    return outbox.scores(site, task.round, values)


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
