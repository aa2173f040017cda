"""``llmchain-fl evaluate RUN DATA``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run directory, or an adapter folder in it.")],
    data: Annotated[
        str, typer.Argument(help="Records: a file, a directory, hub:org/name or generated:NAME; none with --suite.")
    ] = "",
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="Which column holds what, if not as in the run: --column text=utterance."),
    ] = None,
    suite: Annotated[
        bool,
        typer.Option("--suite", help="Edits, who speaks, sureness, why, shift, membership: on the run's test sets."),
    ] = False,
    size: Annotated[int, typer.Option("--size", min=20, help="Most records that the suite looks at.")] = 300,
) -> None:
    """Score a trained adapter on records of yours, or play the suite on the run's public test sets (suite.json)."""
    from llmchain_fl.core.errors import ConfigError

    if suite == bool(data):
        raise ConfigError(["give DATA, or --suite, and not both" if data else "what is to be scored: DATA is missing"],
                          remedy="llmchain-fl evaluate RUN DATA, or llmchain-fl evaluate RUN --suite")  # fmt: skip
    if suite:
        _suite(run, size)
        return
    from llmchain_fl.cli.trained import find_adapter, open_trained, own_columns, task_of, told_columns
    from llmchain_fl.core.tasks.kind import task_kind
    from llmchain_fl.data.source import check_kind, read_rows

    mapping = told_columns(columns)
    folder = find_adapter(run)
    spec = task_of(folder)
    kind = task_kind(spec.kind)
    rows = read_rows(data, mapping=own_columns(folder) | mapping, required=kind.columns, split="test", seed=1)
    check_kind(rows, kind, spec.labels)
    _, task = open_trained(folder)
    for metric, value in task.score(task.encode(rows.records)).items():
        typer.echo(f"{metric} {value:.4f}")
    typer.echo(f"records {len(rows.records)}")


def _suite(run: Path, size: int) -> None:
    from llmchain_fl.core.printable import printable
    from llmchain_fl.report.suite import FILE, suite_lines
    from llmchain_fl.suite.run import evaluate

    for name, words in suite_lines(evaluate(run, size, say=lambda part: typer.echo(f"{part} ...", err=True))):
        typer.echo(f"{name}: {printable(words)}")
    typer.echo(f"written: {run / FILE}", err=True)
