"""``llmchain-fl coordinator run``, ``status`` and ``stop``: the runs of a coordinator that is up."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llmchain_fl.onprem.follow import Outcome
    from llmchain_fl.onprem.runs import Runs, Wish

Kit = Annotated[Path, typer.Argument(help="The folder of the coordinator's kit.")]


def run(
    kit: Kit,
    scenario: Annotated[str, typer.Argument(help="A .toml file or a shipped name; else the scenario of the kit.")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: --set stage.rounds=6 (repeat it).")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with this run directory; also after `extend`.")
    ] = None,
) -> None:
    """Start a run and stay with it to its end; a run whose process has died is gone on with from its checkpoint.

    Exit code 0: completed. 3: its budget ended before its plan. 2: a configuration that cannot run. 1: it failed, or
    somebody stopped it."""
    from llmchain_fl.onprem.follow import Follower
    from llmchain_fl.onprem.round_lines import RoundLines

    runs = _runs(kit)
    wish, bundle = _wish(runs, scenario, settings or [], resume), runs.bundle()
    try:
        with runs.control() as control:
            outcome = Follower(runs, control, RoundLines(_say), _say).play(bundle, wish)
    except KeyboardInterrupt:
        _say(f"not watched any more; the run goes on. llmchain-fl coordinator status {shlex.quote(str(kit))}")
        raise
    _end(outcome, wish, kit)


def status(kit: Kit = Path()) -> None:
    """Who is connected, which runs the SuperLink knows, and how far the latest one is by the server's own book."""
    from llmchain_fl.onprem.follow import sites_line
    from llmchain_fl.onprem.round_lines import RoundLines

    runs = _runs(kit)
    with runs.control() as control:
        _say(sites_line(runs.sites(control)))
        for one in runs.all(control):
            _say(f"run {one.number} {one.word}: {one.out}")
    latest = runs.latest()
    if latest is not None:
        lines: list[str] = []
        RoundLines(lines.append)(latest)
        _say(f"{latest.path}: {lines[-1] if lines else 'no round is over yet'}")


def stop(
    kit: Kit,
    run: Annotated[str, typer.Argument(help="Its number or its folder, where several are going on.")] = "",
) -> None:
    """Stop a run. Its finished rounds stay, and it can be gone on with."""
    runs = _runs(kit)
    with runs.control() as control:
        status = runs.stop(control, run)
    _say(f"run {status.number} is stopped; go on with: {_again(kit, Path(status.out))}")


def _runs(kit: Path) -> Runs:
    from llmchain_fl.cli.apps import app_root
    from llmchain_fl.onprem.runs import Runs

    return Runs(kit, app_root())


def _wish(runs: Runs, scenario: str, settings: list[str], resume: Path | None) -> Wish:
    """What is asked for; a configuration that cannot run is refused before anybody is asked."""
    from llmchain_fl.config.read import read_config
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.onprem.runs import Wish
    from llmchain_fl.run_dir import RunDir

    if resume is not None:
        if scenario or settings:
            raise ConfigError(["--resume goes on with a run as it is: no scenario and no --set beside it"])
        return Wish(RunDir.open(resume).path.absolute())
    wish = runs.wish(scenario, settings)
    if wish.scenario is not None:
        read_config(wish.scenario, settings)
    return wish


def _end(outcome: Outcome, wish: Wish, kit: Path) -> None:
    from llmchain_fl.cli.summary import show_summary
    from llmchain_fl.onprem.follow import BUDGET, COMPLETED
    from llmchain_fl.run_dir import RunDir

    run = RunDir(wish.out)
    if outcome.code in (COMPLETED, BUDGET):
        show_summary(run)
    remedy = f"\n  -> go on with: {_again(kit, wish.out)}" if outcome.code != COMPLETED and run.begun else ""
    text = outcome.text.partition("; every finished round is kept, go on with:")[0]  # Flower's own command
    typer.secho(f"{text}{remedy}", err=outcome.code != COMPLETED)
    raise typer.Exit(outcome.code)


def _again(kit: Path, out: Path) -> str:
    return f"llmchain-fl coordinator run {shlex.quote(str(kit))} --resume {shlex.quote(str(out))}"


def _say(text: str) -> None:
    from llmchain_fl.core.printable import printable

    typer.echo(printable(text))
