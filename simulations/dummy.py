"""A run without a round: everything up to the first one, and one step on made-up records, as a site would try it.

What is asked here needs the base model: whether it opens, can read what the task gives it and takes the adapter, how
many bytes a round is, how public texts look in its tokens. Nothing is kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from client import check, trial
from client.local import train_round
from client.steady import Brought, shape_for
from llmchain_fl.aggregation.rule import Arrays, Rule, names_of
from llmchain_fl.config.calendar import stages_in_order
from llmchain_fl.config.schema import RunConfig, StageConfig
from llmchain_fl.config.stage_task import kind_at
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.work import WorkSpec, open_work
from llmchain_fl.data.stages import Sources, named, public_labels, stage_labels
from llmchain_fl.planning.findings import Findings
from llmchain_fl.planning.forecast import forecast
from llmchain_fl.planning.signal import planned_ratio, verdict
from llmchain_fl.planning.texts import MOST_TEXTS, check_texts
from llmchain_fl.planning.work import windows_of
from llmchain_fl.progress import Silent
from llmchain_fl.run_dir import RunDir
from server.build import build
from server.loop import Loop
from server.upload import upload_of
from simulations.prepare import make_identities, simulated_site


def check_model(config: RunConfig, *, train: bool = True) -> Findings:
    """See the module. ``train``: whether training records are here."""
    findings = Findings()
    with tempfile.TemporaryDirectory() as home:
        run = RunDir.create(Path(home) / "run", to_toml(config))
        try:
            loop = findings.attempt("model", build, config, run, Silent())
            if loop is not None:
                _describe(findings, config, loop)
                scorer, rows = loop.parts.scorer, (config.model.max_tokens, windows_of(config))
                check_texts(findings, scorer.resident.base.tokenizer, _shown(config, train=train), *rows, scorer.cut())
                for stage in _first_of_kinds(config):
                    findings.attempt("model", _try, config, loop, run, stage)
        except Exception as error:  # whatever somebody's model does
            findings.fault("model", f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:300])
    return findings


def _describe(findings: Findings, config: RunConfig, loop: Loop) -> None:
    resident, strategy = loop.parts.scorer.resident, loop.parts.strategy
    trained = _trained(strategy.rule, loop.parts.start)
    findings.fact("model", f"{resident.base.public_name}: {trained:,} numbers are trained in a round")
    findings.fact("model", upload_of(config, strategy.asker.work, strategy.rule, loop.parts.start))
    if warning := drowned(config, strategy.rule, loop.parts.start):
        findings.warn("privacy", warning, "see llmchain-fl privacy plan --recommend, docs/operating-points.md")


def drowned(config: RunConfig, rule: Rule, start: Arrays) -> str:
    """A sentence where noise leaves little or nothing to learn; "" where it does not, or where nothing is known."""
    plan, labels = forecast(config), list(public_labels(config))
    if plan is None:
        return ""
    largest = max(len(stage_labels(stage, labels) or labels) for stage in config.stage)
    return verdict(planned_ratio(config, plan, _trained(rule, start), largest))


def _trained(rule: Rule, start: Arrays) -> int:
    """How many numbers a site trains in the first round: one clip and one noise over all of them."""
    return sum(start[name].size for name in names_of(rule.schedule(1).trains, start))


def _first_of_kinds(config: RunConfig) -> list[StageConfig]:
    """The first stage of each kind of task."""
    return list({kind_at(config, stage): stage for stage in reversed(stages_in_order(config))}.values())[::-1]


def _try(config: RunConfig, loop: Loop, run: RunDir, stage: StageConfig) -> None:
    """What a site does in ``stage`` before it pays, with the policy of a simulated site.

    Raises:
        LlmchainError: why it would refuse.
    """
    name, task = _first_task(config, loop, stage)
    make_identities(config, run.sites)
    work, site = WorkSpec.from_json(task.work), simulated_site(config, run.sites, name)
    site.check(work)
    check.check_train(site, task)
    resident, nlp_task = open_work(work.resident, work.task)
    resident.focus(task.trains or work.adapter.trained)
    brought = Brought(task.arrays, task.guard_arrays, work.guards)
    private = work.plan is not None and work.plan.unit != "site"
    shape = shape_for(resident, nlp_task, work.task.max_tokens, site.compute.rows, brought) if private else None
    trial.try_out(task, work, nlp_task, {}, shape, train_round)


def _first_task(config: RunConfig, loop: Loop, stage: StageConfig) -> tuple[str, TrainTask]:
    """A site of the first round, and what it would be told in ``stage``."""
    strategy, names = loop.parts.strategy, [f"site-{number:06d}" for number in range(config.sites.count)]
    nodes = {name: number for number, name in enumerate(names)}
    planned = next((one for one in strategy.rounds.values() if one.stage_name == stage.name), strategy.rounds[1])
    tasks = strategy.asker.tasks(planned, names[:1], nodes, loop.parts.start, {}, {})
    return names[0], tasks[names[0]]


def _shown(config: RunConfig, *, train: bool) -> list[str]:
    """Public texts of every stage: those it is tested on, else those that the simulation deals out."""
    sources, labels, texts = Sources(), list(public_labels(config)), list[str]()
    for stage in stages_in_order(config):
        public = ("test", "dev", "train") if train else ("test", "dev")
        which = next((one for one in public if named(config, stage, one)), "")
        if not which or "{site}" in named(config, stage, which):
            continue
        rows: Sequence[dict[str, str]] = sources.stage(config, stage, which, labels).records[:MOST_TEXTS]
        texts += [task_kind(kind_at(config, stage)).text_of(row) for row in rows]
    return texts
