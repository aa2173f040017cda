"""``llmchain-fl predict RUN "text"``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run directory, or an adapter folder in it.")],
    text: Annotated[list[str], typer.Argument(help="One or more texts.")],
    top: Annotated[int, typer.Option("--top", min=1, help="How many labels to show.")] = 3,
) -> None:
    """Use a trained adapter on new text: labels with their probabilities, or an answer."""
    from llmchain_fl.cli.trained import open_trained
    from llmchain_fl.core.tasks.kind import task_kind

    work, task = open_trained(run)
    for line, found in zip(text, task.predict(text, top), strict=True):
        typer.echo(line)
        for answer, chance in found:
            typer.echo(f"  {chance:6.1%}  {answer}" if task_kind(work.task.kind).labelled else f"  {answer}")
