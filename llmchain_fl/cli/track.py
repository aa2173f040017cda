"""``llmchain-fl track RUN --to NAME``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    to: Annotated[str, typer.Option("--to", help="wandb, mlflow or trackio.")],
    online: Annotated[bool, typer.Option("--online", help="Send it; else it stays in RUN/track.")] = False,
) -> None:
    """Copy a run's released measurements for a tracker: of the global adapter, on public records, no site."""
    from llmchain_fl.track.copy import copy_run

    rounds = copy_run(run, to, online=online)
    typer.echo(f"{rounds} rounds for {to}" + ("" if online else f", in {run / 'track'}"))
