"""The ServerApp of ``flwr run``; ``run_all`` is what every backend calls."""

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
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.extras import how_to_install, lacking
from llmchain_fl.progress import Logged, Progress
from llmchain_fl.run_dir import RunDir, fresh, how_on_flower
from llmchain_fl.run_ends import RunPaused
from llmchain_fl.scenario import find_scenario
from server.audited import AuditedGrid, entered
from server.build import build
from server.one_by_one import OneByOne
from server.scoring import Opening

log = logging.getLogger("llmchain_fl")


def run_all(config: RunConfig, run: RunDir, grid: Grid, progress: Progress, opening: Opening | None = None) -> None:
    """Play the run to its end and write its report; ``opening``: more rows of round 0 (``server/scoring.py``)."""
    try:
        loop = build(config, run, progress, opening=opening)
        with entered(run):
            loop.play(AuditedGrid(grid, run, loop.parts.state))
    finally:
        if run.rows():
            _write_pages(run)


def _write_pages(run: RunDir) -> None:
    """Report and TensorBoard's events, where their packages are installed."""
    missing = lacking("report")
    if missing:
        log.warning("no report: %s not installed; %s", ", ".join(missing), how_to_install(missing[0]))
        return
    from llmchain_fl.report.page import write_report
    from llmchain_fl.report.tensorboard import write_events

    write_events(run)
    write_report(run)


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """``flwr run``: the run config names the scenario (``scenario``), changes to it (``set``) and the run (``out``).

    Relative paths are taken from the folder in which the SuperLink was started.
    """
    with _log_on_stdout():
        run, config = _begin(UserSettings.read(context))
        log.info("run directory: %s", run.path.resolve())
        try:
            with run.alone():
                run_all(config, run, OneByOne(grid), Logged())
        except RunPaused as error:
            again = f"every finished round is kept, go on with: {how_on_flower(run)}"
            raise RunPaused(error.what, remedy=f"{error.remedy}; {again}" if run.begun else error.remedy) from None


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


def _begin(user: UserSettings) -> tuple[RunDir, RunConfig]:
    """A new run directory, or the one to go on with, and its configuration.

    Raises:
        ConfigError, RunError: settings that fit no scenario, or no such run.
    """
    if user.resume and not user.out:
        raise ConfigError(["resume goes on with the run in out: give it out=..."])
    try:
        changes = shlex.split(user.changes)
    except ValueError as error:
        raise ConfigError([f"set = {user.changes!r} cannot be read: {error}"]) from None
    if user.resume:
        run = RunDir.open(Path(user.out))
        return run, read_config(run.config, changes)
    config = read_config(find_scenario(user.scenario), changes)
    out = Path(user.out) if user.out else fresh(Path("runs"), Path(user.scenario).stem)
    return RunDir.create(out, to_toml(config)), config


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
