"""``llmchain-fl simulate [SCENARIO]``: a whole federation on this machine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llmchain_fl.run_dir import RunDir
    from llmchain_fl.run_ends import RunStopped

BACKENDS = ("in-process", "ray")


def command(
    scenario: Annotated[str, typer.Argument(help="A shipped scenario (see `scenarios`) or a .toml file.")] = "demo",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: --set train.lr=0.01 (repeat it).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory to write; default runs/SCENARIO-N.")] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", help="Go on with this run directory after a crash or Ctrl-C; see also `extend`."),
    ] = None,
    backend: Annotated[
        str, typer.Option("--backend", help="in-process (default) or ray (Flower's own simulation).")
    ] = "in-process",
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Processes that play sites; 0: as many as pays, one a core at most.")
    ] = 0,
    beside: Annotated[
        list[str] | None,
        typer.Option("--beside", help="Run it once more with this changed ('a=1; b=2'), and compare; repeatable."),
    ] = None,
) -> None:
    """Run a scenario with all its sites on this machine."""
    from llmchain_fl.core.errors import ConfigError

    check_backend(backend)
    if resume is not None and (beside or out):
        raise ConfigError(["--resume goes on in the run's own directory: no --beside or --out with it"])
    if resume is not None:
        ended = [_resume(resume, list(settings or []), backend, workers)]
    else:
        first, stop = _run(scenario, list(settings or []), out, backend, workers, shared=bool(beside))
        ended = [stop]
        for number, change in enumerate(beside or [], start=1):
            changed = [part.strip() for part in change.split(";")]
            told_all, place = [*(settings or []), *changed], _beside(out, number)
            second, stop = _run(scenario, told_all, place, backend, workers, shared=True)
            ended.append(stop)
            _compare(first, second, ", ".join(changed))
    for stop in filter(None, ended):
        raise stop


def check_backend(name: str) -> None:
    """Raises a ConfigError for a backend that does not exist."""
    from llmchain_fl.core.errors import ConfigError

    if name not in BACKENDS:
        raise ConfigError([f"--backend {name!r}: must be one of {', '.join(BACKENDS)}"])


def _beside(out: Path | None, number: int) -> Path | None:
    return out.with_name(f"{out.name}-beside{f'-{number}' if number > 1 else ''}") if out else None


def _run(
    scenario: str, settings: list[str], out: Path | None, backend: str, workers: int, *, shared: bool
) -> tuple[RunDir, RunStopped | None]:
    """The run, and why its budget ended before its plan did (None: it did not).

    ``shared``: what frozen layers give for a text is kept for another run of this process.
    """
    from llmchain_fl.cli.apps import simulator
    from llmchain_fl.cli.check import check_before
    from llmchain_fl.config.read import read_config
    from llmchain_fl.core.errors import LlmchainError
    from llmchain_fl.scenario import find_scenario

    config = read_config(find_scenario(scenario), settings)
    check_before(config, out)
    tool = simulator()
    run: RunDir = tool.start(config, Path(scenario).stem, out)
    try:
        if shared:
            tool.share_outputs(config)
        return run, play(tool, config, run, backend, workers)
    except (LlmchainError, KeyboardInterrupt):
        run.discard()  # nobody was asked for anything: leave no empty run behind
        raise


def _resume(path: Path, settings: list[str], backend: str, workers: int) -> RunStopped | None:
    from llmchain_fl.cli.apps import simulator
    from llmchain_fl.run_dir import RunDir

    RunDir.open(path)  # before torch is imported
    tool = simulator()
    config, run = tool.reopen(path, settings)
    return play(tool, config, run, backend, workers)


def play(tool: Any, config: Any, run: RunDir, backend: str, workers: int = 0) -> RunStopped | None:
    """Play what is left of a run, and show what came of it.

    Returns:
        Why its budget ended before its plan did; None: it did not.
    """
    from llmchain_fl.cli.faults import kept_in
    from llmchain_fl.cli.live import watching
    from llmchain_fl.cli.summary import show_summary
    from llmchain_fl.report.headline import title_of
    from llmchain_fl.run_ends import RunPaused, RunStopped

    stop: RunStopped | None = None
    again = f"every finished round is kept, go on with: llmchain-fl simulate --resume {shlex.quote(str(run.path))}"
    try:
        with kept_in(run), watching(title_of(config.model_dump()), run.path) as progress:
            tool.simulate(config, run, progress, backend, workers=workers)
    except RunStopped as error:
        stop = error
    except RunPaused as error:
        raise RunPaused(error.what, remedy=f"{error.remedy}; {again}" if run.begun else error.remedy) from None
    except KeyboardInterrupt:
        typer.secho(f"stopped; {again if run.begun else 'no site was asked for anything'}", err=True)
        raise
    show_summary(run)
    return stop


def _compare(first: RunDir, second: RunDir, change: str) -> None:
    from llmchain_fl.cli.summary import show_comparison

    show_comparison(first, second, change)
