"""``llmchain-fl evaluate RUN DATA``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run directory, or an adapter folder in it.")],
    data: Annotated[str, typer.Argument(help="Records: a file, a directory, hub:org/name or generated:NAME.")],
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="Which column holds what, if not as in the run: --column text=utterance."),
    ] = None,
) -> None:
    """Score a trained adapter on records of yours."""
    from llmchain_fl.cli.trained import find_adapter, open_trained, own_columns, task_of, told_columns
    from llmchain_fl.core.tasks.kind import task_kind
    from llmchain_fl.data.source import check_kind, read_rows

    told = told_columns(columns)
    folder = find_adapter(run)
    spec = task_of(folder)
    kind = task_kind(spec.kind)
    rows = read_rows(data, mapping=own_columns(folder) | told, required=kind.columns, split="test", seed=1)
    check_kind(rows, kind, spec.labels)
    _, task = open_trained(folder)
    for metric, value in task.score(task.encode(rows.records)).items():
        typer.echo(f"{metric} {value:.4f}")
    typer.echo(f"records {len(rows.records)}")
