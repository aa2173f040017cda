"""``llmchain-fl simulate [SCENARIO]``: a whole federation on this machine."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llmchain_fl.core.errors import RunStopped
    from llmchain_fl.run_dir import RunDir

BACKENDS = ("in-process", "ray")


def command(
    scenario: Annotated[str, typer.Argument(help="A shipped scenario (see `scenarios`) or a .toml file.")] = "demo",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: --set train.lr=0.01 (repeat it).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory to write; default runs/SCENARIO-N.")] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with this run directory after a crash or Ctrl-C.")
    ] = None,
    backend: Annotated[
        str, typer.Option("--backend", help="in-process (default) or ray (Flower's own simulation).")
    ] = "in-process",
    beside: Annotated[
        list[str] | None, typer.Option("--beside", help="Run it a second time with this setting changed, and compare.")
    ] = None,
) -> None:
    """Run a scenario with all its sites on this machine."""
    from llmchain_fl.core.errors import ConfigError

    if backend not in BACKENDS:
        raise ConfigError([f"--backend {backend!r}: must be one of {', '.join(BACKENDS)}"])
    if resume is not None and (settings or beside or out):
        raise ConfigError(["--resume takes the run as it was begun: no --set, --beside or --out with it"])
    if resume is not None:
        ended = [_resume(resume, backend)]
    else:
        first, stop = _run(scenario, list(settings or []), out, backend)
        ended = [stop]
        if beside:
            second, stop = _run(scenario, [*(settings or []), *beside], _beside(out), backend)
            ended.append(stop)
            _compare(first, second, ", ".join(beside))
    for stop in filter(None, ended):
        raise stop


def _beside(out: Path | None) -> Path | None:
    return out.with_name(f"{out.name}-beside") if out else None


def _run(scenario: str, settings: list[str], out: Path | None, backend: str) -> tuple[RunDir, RunStopped | None]:
    """The run, and why its budget ended before its plan did (None: it did not)."""
    from llmchain_fl.cli.apps import simulator
    from llmchain_fl.config.read import read_config
    from llmchain_fl.core.errors import LlmchainError
    from llmchain_fl.scenario import find_scenario

    config = read_config(find_scenario(scenario), settings)
    tool = simulator()
    run: RunDir = tool.start(config, Path(scenario).stem, out)
    try:
        return run, _play(tool, config, run, backend)
    except LlmchainError:
        if not run.begun:
            shutil.rmtree(run.path)  # nobody was asked for anything: leave no empty run behind
        raise


def _resume(path: Path, backend: str) -> RunStopped | None:
    from llmchain_fl.cli.apps import simulator

    tool = simulator()
    config, run = tool.reopen(path)
    return _play(tool, config, run, backend)


def _play(tool: Any, config: Any, run: RunDir, backend: str) -> RunStopped | None:
    from llmchain_fl.cli.live import watching
    from llmchain_fl.cli.summary import show_summary
    from llmchain_fl.core.errors import RunStopped

    stop: RunStopped | None = None
    try:
        with watching(config.title or "run", run.path) as progress:
            tool.simulate(config, run, progress, backend)
    except RunStopped as error:
        stop = error
    except KeyboardInterrupt:
        again = f"llmchain-fl simulate --resume {shlex.quote(str(run.path))}"
        typer.secho(f"stopped; every finished round is kept. Go on with: {again}", err=True)
        raise
    show_summary(run)
    return stop


def _compare(first: RunDir, second: RunDir, change: str) -> None:
    from llmchain_fl.cli.summary import show_comparison

    show_comparison(first, second, change)
