"""``llmchain-fl unlearn RUN --stage NAME`` (or ``--site NAME``) and ``llmchain-fl restore RUN --stage NAME``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

_OUT = "A new folder for the adapter; nothing that is there is changed."


@contextlib.contextmanager
def _undisturbed(path: Path) -> Iterator[None]:
    """No process changes the run meanwhile; an adapter folder, or a run that nobody can write, has no lock."""
    from llmchain_fl.run_dir import RunDir

    if not (path / "metrics.jsonl").is_file() or not os.access(path, os.W_OK):
        yield
        return
    with RunDir(path).alone():
        yield


def command(
    run: Annotated[Path, typer.Argument(help="A run directory, or (for a stage) an adapter folder.")],
    out: Annotated[Path, typer.Option("--out", help=_OUT)],
    stage: Annotated[str, typer.Option("--stage", help="The stage whose slot is cut out.")] = "",
    site: Annotated[str, typer.Option("--site", help="Go back to before this site's first update.")] = "",
) -> None:
    """Make an adapter without a stage, or from before a site; docs/unlearning.md says what that promises."""
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.run_dir import RunDir

    if bool(stage) == bool(site):
        raise ConfigError(["name one of --stage and --site"], remedy="nothing was written")
    if site:
        RunDir.open(run)  # before torch is imported
    from llmchain_fl.continual import unlearn

    if stage:
        with _undisturbed(run):
            left = unlearn.remove_stage(run, stage, out)
        typer.echo(f"{out}: the slot of {stage} is out; left: {', '.join(left)}")
        typer.echo("slots taught after it were taught in its presence; what they took from it is not taken back")
        return
    with _undisturbed(run):
        older, first = unlearn.remove_site(RunDir.open(run), site, out)
    typer.echo(f"{out}: the adapter of stage {older.stage} (round {older.round}), from before {site} (round {first})")
    typer.echo(f'what was learnt later, from all sites, is not in it; go on without it: sites.excluded = ["{site}"]')


def restore(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Annotated[Path, typer.Option("--out", help=_OUT)],
    stage: Annotated[str, typer.Option("--stage", help="The adapter as it was at the end of this stage.")] = "",
    number: Annotated[int, typer.Option("--round", min=0, help="The last adapter kept up to this round.")] = 0,
) -> None:
    """Bring an older adapter of a run back, with its lineage, into a folder of its own."""
    from llmchain_fl.continual import unlearn
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.run_dir import RunDir

    if bool(stage) == bool(number):
        raise ConfigError(["name one of --stage and --round"], remedy="nothing was written")
    with _undisturbed(run):
        lineage = unlearn.restore(RunDir.open(run), out, stage=stage, round=number)
    typer.echo(f"{out}: the adapter of stage {lineage.stage} (round {lineage.round}), content {lineage.content[:12]}")
