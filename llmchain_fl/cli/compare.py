"""``llmchain-fl compare [NAME]``: rules, guards or any settings beside each other, over several seeds."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmchain_fl.compare.check import Checked
    from llmchain_fl.compare.outcome import Outcome
    from llmchain_fl.compare.plan import Comparison

MOST_JOBS = 256


def command(
    name: Annotated[str, typer.Argument(help="A shipped comparison (see --list) or a .toml file.")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the comparison; default runs/NAME.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Cells played at the same time, one process each.")] = 1,
    seeds: Annotated[str, typer.Option("--seeds", help="Only these seeds, or other ones: --seeds 1,2.")] = "",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only these labels: --only AXIS=LABEL,LABEL (repeat it).")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting of every cell: --set train.lr=0.01 (repeat it).")
    ] = None,
    continual: Annotated[bool, typer.Option("--continual", help="Guards over a stream of tasks.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, list the cells, run nothing.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List the shipped comparisons.")] = False,
) -> None:
    """Compare rules or guards fairly: the same split, start, optimiser and seeds. Stop it at any time; the same
    command goes on."""
    from llmchain_fl.cli import compare_view as view
    from llmchain_fl.compare.plan import compare_command
    from llmchain_fl.core.errors import ConfigError

    if listed:
        view.show_shipped(continual=continual)
        return
    if not 1 <= jobs <= MOST_JOBS:
        raise ConfigError([f"--jobs {jobs}: must be from 1 to {MOST_JOBS}"])
    comparison, checked = _read(name, settings or [], continual, seeds, only or [])
    if dry_run:
        view.show_cells(comparison, checked)
        _check_records(checked)
        return
    folder = out or Path("runs") / comparison.name
    again = [part for text in only or [] for part in ("--only", text)] + (["--seeds", seeds] if seeds else [])
    again += [part for text in settings or [] for part in ("--set", text)]
    again += ["--out", str(folder), "--jobs", str(jobs)]
    outcomes = _play(comparison, checked, folder, jobs, compare_command(name or comparison.name, again))
    view.show_results(comparison, outcomes, folder)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _read(
    name: str, settings: Sequence[str], continual: bool, seeds: str, only: Sequence[str]
) -> tuple[Comparison, Checked]:
    """The comparison and its cells, all checked."""
    from llmchain_fl.compare.check import check_cells
    from llmchain_fl.compare.read import find_comparison, read_comparison, read_only, read_seeds
    from llmchain_fl.core.errors import ConfigError

    comparison = read_comparison(find_comparison(name, continual=continual), settings)
    if continual and not comparison.continual:
        raise ConfigError([f"{comparison.name} does not compare guards over a stream: leave --continual out"])
    return comparison, check_cells(comparison, comparison.cells(read_seeds(seeds), read_only(comparison, only)))


def _check_records(checked: Checked) -> None:
    """Every source of every cell, read once; where files are not here, only that is said."""
    from llmchain_fl.cli.check import check_cells
    from llmchain_fl.compare.check import lacking

    missing = lacking(checked)
    if missing:
        typer.echo(f"records are not checked, for these files are not here: {', '.join(missing)}")
        return
    check_cells(checked.configs.values())


def _load_base(checked: Checked) -> None:
    """That of the first cell, once for all processes; where it cannot be loaded each cell says so itself.

    Not onto a GPU, for CUDA does not survive a fork: there each process loads its own.
    """
    import torch

    from llmchain_fl.cli.apps import simulator
    from llmchain_fl.core.errors import LlmchainError

    config = next(iter(checked.configs.values()))
    if config.model.device == "cpu" or not torch.cuda.device_count():
        with contextlib.suppress(LlmchainError):
            simulator().share_outputs(config)


def _play(comparison: Comparison, checked: Checked, folder: Path, jobs: int, again: str) -> Sequence[Outcome]:
    from llmchain_fl.cli.compare_view import watching
    from llmchain_fl.compare.check import lacking
    from llmchain_fl.compare.play import play_cell
    from llmchain_fl.compare.run import play_comparison
    from llmchain_fl.compare.work import in_processes
    from llmchain_fl.core.errors import DataError

    if missing := lacking(checked):
        raise DataError(
            f"not here: {', '.join(missing)}", remedy="run it where these files are, or change the scenario"
        )
    try:
        with watching(comparison, checked, folder, jobs) as watch:
            runner = in_processes(jobs, folder / "logs", partial(_load_base, checked))
            return play_comparison(comparison, checked, folder, runner, play_cell, watch, again)
    except KeyboardInterrupt:
        typer.secho(f"stopped; finished cells and rounds are kept. Go on with: {again}", err=True)
        raise
