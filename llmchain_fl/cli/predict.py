"""``llmchain-fl predict RUN "text" ...``, or of a whole file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llmchain_fl.core.tasks.base import Task

BATCH = 64
PREDICTED, PROBABILITY = "predicted", "probability"


def command(
    run: Annotated[Path, typer.Argument(help="A run directory, or an adapter folder in it.")],
    text: Annotated[list[str] | None, typer.Argument(help="One or more texts.")] = None,
    file: Annotated[str, typer.Option("--file", help="Instead of texts: a file of records, such as notes.csv.")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="Where the answers go: a new .csv or .jsonl file.")] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="Which column holds what, if not as in the run: --column text=utterance."),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many labels to show.")] = 3,
) -> None:
    """Use a trained adapter on new texts: labels with their probabilities, or answers."""
    from llmchain_fl.cli.trained import find_adapter, open_trained, own_columns, task_of, told_columns
    from llmchain_fl.core.data.rows import Rows
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.core.tasks.kind import task_kind
    from llmchain_fl.data.source import check_kind, read_rows

    if bool(text) == bool(file):
        raise ConfigError(["give either texts or --file"])
    if out is not None:
        _check_out(out)
    given = told_columns(columns)
    folder = find_adapter(run)
    kind = task_kind(task_of(folder).kind)
    names = kind.asked
    known = (*names, *kind.optional)
    mapping = {ours: theirs for ours, theirs in (own_columns(folder) | given).items() if ours in known}
    rows = read_rows(file, mapping=mapping, required=names, split="test", seed=1) if file else None
    if rows is not None and kind.fault is not None:
        asked_only = [{column: row[column] for column in names} for row in rows.records]
        judge = replace(kind, fault=kind.asked_fault or kind.fault)
        check_kind(Rows(asked_only, rows.lines, rows.where), judge, task_of(folder).labels)
    texts = list(text or ()) if rows is None else [kind.text_of(row) for row in rows.records]
    _, task = open_trained(folder)
    answers = (
        _answers(task, texts, top) if rows is None else _row_answers(task, rows.records, (*names, *kind.optional), top)
    )
    if out is None:
        for line, ranked in zip(texts, answers, strict=True):
            typer.echo(line)
            for answer, chance in ranked:
                typer.echo(f"  {chance:6.1%}  {answer}" if kind.labelled else f"  {answer}")
        return
    records = [{names[0]: line} for line in texts] if rows is None else rows.records
    _write(out, [dict(row) | _cells(ranked, kind.labelled) for row, ranked in zip(records, answers, strict=True)])
    typer.echo(f"{len(records)} answers in {out}")


def _answers(task: Task, texts: Sequence[str], top: int) -> Iterator[list[tuple[str, float]]]:
    for start in range(0, len(texts), BATCH):
        yield from task.predict(texts[start : start + BATCH], top)


def _row_answers(
    task: Task, rows: Sequence[Mapping[str, str]], columns: Sequence[str], top: int
) -> Iterator[list[tuple[str, float]]]:
    """The same for records; a task that looks at one column alone is asked about its text."""
    answer = getattr(task, "answer", None)
    if answer is None or (len(columns) == 1 and type(columns[0]) is str):
        yield from _answers(task, [row[columns[0]] for row in rows], top)
        return
    for start in range(0, len(rows), BATCH):
        yield from answer([{c: row[c] for c in columns if c in row} for row in rows[start : start + BATCH]], top)


def _cells(ranked: Sequence[tuple[str, float]], labelled: bool) -> dict[str, str]:
    """``predicted``, ``probability``, and ``predicted_2``, ... for the labels after the first."""
    cells: dict[str, str] = {}
    for number, (answer, chance) in enumerate(ranked, start=1):
        end = f"_{number}" if number > 1 else ""
        cells[PREDICTED + end] = answer
        if labelled:
            cells[PROBABILITY + end] = f"{chance:.4f}"
    return cells


def _check_out(out: Path) -> None:
    """Refuse, before anything is computed, what could not be written.

    Raises:
        ConfigError: another kind of file, one that is there already, a folder that is not.
    """
    from llmchain_fl.core.errors import ConfigError

    faults = [
        (out.suffix.lower() not in (".csv", ".jsonl"), "write .csv or .jsonl"),
        (out.exists(), "it is there already; name a new file"),
        (not out.parent.is_dir(), f"there is no folder {out.parent}"),
    ]
    wrong = [f"--out {out}: {text}" for holds, text in faults if holds]
    if wrong:
        raise ConfigError(wrong)


def _write(out: Path, rows: Sequence[dict[str, str]]) -> None:
    import csv
    import io
    import json

    from llmchain_fl.atomic_file import atomic_write

    text = io.StringIO(newline="")
    if out.suffix.lower() == ".csv":
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = csv.DictWriter(text, names, restval="")
        table.writeheader()
        table.writerows(rows)
    else:
        text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    atomic_write(out, text.getvalue().encode())
