"""Config -> parts -> run. No logic of its own.

``app`` is the ServerApp of ``flwr run``; ``build`` is what every backend calls.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from llmchain_fl.config.read import read_config
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import ConfigError, RunError
from llmchain_fl.data.stages import check_stages, public_labels
from llmchain_fl.guards import ServerGuards
from llmchain_fl.planning.work import guard_specs, work_from
from llmchain_fl.progress import Logged, Progress
from llmchain_fl.report.page import write_report
from llmchain_fl.report.tensorboard import write_events
from llmchain_fl.run_dir import RunDir, fresh
from llmchain_fl.scenario import find_scenario
from server.central import CentralPrivacy
from server.checkpoint import load_state
from server.loop import Loop
from server.one_by_one import OneByOne
from server.parts import first_state, make_quarantine, make_robust, make_rule, start_arrays
from server.privacy_book import PrivacyBook, make_plan
from server.scoring import Scorer
from server.strategy import FederatedLora

log = logging.getLogger("llmchain_fl")


def build(config: RunConfig, run: RunDir, progress: Progress) -> Loop:
    """All parts of a run, composed; takes up the last saved round if the run directory has one.

    Raises:
        LlmchainError: anything that would fail later and can be seen now.
    """
    state = load_state(run.state)
    labels = public_labels(config)
    check_stages(config, list(labels))
    rule = make_rule(config.aggregation)
    plan = make_plan(config, state.noise_multiplier if state else None)
    work = work_from(config, labels, rule.trained, plan)
    scorer = Scorer(config, work, list(labels))
    start = start_arrays(config, work, rule, scorer)
    if state is None:
        state = first_state(work, start)
    elif state.work != work.digest():
        raise RunError(
            f"{run.path} was begun with another configuration", remedy="resume it without --set, or start a new run"
        )
    run.truncate_after(state.round if state.round else -1)
    guards = ServerGuards(guard_specs(config))
    guards.load_state(state.guards)
    central = CentralPrivacy(plan, config.privacy.clip_quantile, state.clip) if plan and plan.unit == "site" else None
    strategy = FederatedLora(config, work, rule, state.run, central, make_robust(config.aggregation))
    strategy.receipts = dict(state.receipts)
    rule.load_state(state.rule)
    book = PrivacyBook(config, plan, state.spendings, state.used_up)
    strategy.ended = dict(state.ended)
    quarantine = make_quarantine(config)
    quarantine.load_state(state.quarantine)
    return Loop(config, work, strategy, guards, scorer, book, run, state, progress, quarantine, start)


def run_all(config: RunConfig, run: RunDir, grid: Grid, progress: Progress) -> None:
    """Play the run to its end and write its report."""
    try:
        build(config, run, progress).play(grid)
    finally:
        if run.rows():
            write_events(run)
            write_report(run)


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """``flwr run``: the run config names the scenario (``scenario``), changes to it (``set``) and the run (``out``).

    Relative paths are taken from the folder in which the SuperLink was started.
    """
    with _log_on_stdout():
        run = _begin(UserSettings.read(context))
        log.info("run directory: %s", run.path.resolve())
        run_all(read_config(run.config), run, OneByOne(grid), Logged())


@dataclass(frozen=True)
class UserSettings:
    """The run config of ``flwr run``; the keys are in ``pyproject.toml``."""

    scenario: str
    changes: str
    out: str
    resume: bool

    @classmethod
    def read(cls, context: Context) -> UserSettings:
        """As given; an empty scenario is the demo."""
        given = context.run_config
        named = [str(given.get(key) or "") for key in ("scenario", "set", "out")]
        return cls(named[0] or "demo", named[1], named[2], bool(given.get("resume")))


def _begin(user: UserSettings) -> RunDir:
    """A new run directory, or the one to go on with.

    Raises:
        ConfigError, RunError: settings that fit no scenario, or no such run.
    """
    if user.resume and (user.changes or not user.out):
        raise ConfigError(["resume takes a run as it was begun: give it out=..., and no set"])
    if user.resume:
        return RunDir.open(Path(user.out))
    try:
        changes = shlex.split(user.changes)
    except ValueError as error:
        raise ConfigError([f"set = {user.changes!r} cannot be read: {error}"]) from None
    config = read_config(find_scenario(user.scenario), changes)
    out = Path(user.out) if user.out else fresh(Path("runs"), Path(user.scenario).stem)
    return RunDir.create(out, to_toml(config))


@contextlib.contextmanager
def _log_on_stdout() -> Iterator[None]:
    """What the run says goes where ``flwr run --stream`` and ``flwr log`` look: Flower passes on standard output."""
    handler, level, passes_on = logging.StreamHandler(sys.stdout), log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = passes_on
