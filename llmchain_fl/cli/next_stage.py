"""``llmchain-fl next-stage RUN STAGE``: the operator says that a stage is over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="The directory of a run with stream.boundaries = announced.")],
    stage: Annotated[str, typer.Argument(help="Name of the stage that is over.")],
) -> None:
    """Say that a stage is over: the run goes on to the next one after its present round."""
    from llmchain_fl.config.calendar import stages_in_order
    from llmchain_fl.config.read import read_config
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.next_stage import announce
    from llmchain_fl.run_dir import RunDir

    run_dir = RunDir.open(run)
    config = read_config(run_dir.config)
    if config.stream.boundaries != "announced":
        raise ConfigError(
            [f'stream.boundaries = "{config.stream.boundaries}": the stages of this run end by the calendar'],
            remedy='begin a run with stream.boundaries = "announced"; nothing was announced',
        )
    announce(run_dir, stage, [one.name for one in stages_in_order(config)])
    typer.echo(f"{stage} ends after the present round")
