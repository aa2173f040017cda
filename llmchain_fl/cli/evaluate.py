"""``llmchain-fl evaluate RUN DATA``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run directory, or an adapter folder in it.")],
    data: Annotated[str, typer.Argument(help="Records: a file, a directory, hub:org/name or generated:NAME.")],
    columns: Annotated[
        list[str] | None, typer.Option("--column", help="Which column holds what: --column text=utterance.")
    ] = None,
) -> None:
    """Score a trained adapter on records of yours."""
    from llmchain_fl.cli.trained import open_trained
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.core.tasks.kind import task_kind
    from llmchain_fl.data.source import check_labels, read_rows

    wrong = [pair for pair in columns or [] if "=" not in pair]
    if wrong:
        raise ConfigError([f"--column {pair!r} is not of the form name=column" for pair in wrong])
    mapping = dict(pair.split("=", 1) for pair in columns or [])
    work, task = open_trained(run)
    kind = task_kind(work.task.kind)
    rows = read_rows(data, mapping=mapping, required=kind.columns, split="test", seed=1)
    if kind.labelled:
        check_labels(rows, [name for name, _ in work.task.labels])
    for metric, value in task.score(task.encode(rows.records)).items():
        typer.echo(f"{metric} {value:.4f}")
    typer.echo(f"records {len(rows.records)}")
