"""``llmchain-fl label RUN --file notes.jsonl --queue ask.jsonl``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A run directory, or the folder of a released adapter.")],
    file: Annotated[str, typer.Option("--file", help="Records without labels, at this site.")],
    queue: Annotated[Path | None, typer.Option("--queue", help="A new .jsonl: what a person should label.")] = None,
    sure: Annotated[Path | None, typer.Option("--sure", help="A new .jsonl: what the adapter labels itself.")] = None,
    below: Annotated[
        float, typer.Option("--below", min=0, max=1, help="Ask where the two best chances differ by less.")
    ] = 0.2,
    at_least: Annotated[float, typer.Option("--at-least", min=0.5, max=1, help="Label from this chance on.")] = 0.95,
    most: Annotated[int, typer.Option("--most", min=1, help="Most questions about one person's records.")] = 8,
    columns: Annotated[
        list[str] | None, typer.Option("--column", help="Which column holds what: --column text=note.")
    ] = None,
) -> None:
    """Choose records to label by the released adapter. Both files stay at the site; nothing is told to anybody."""
    from llmchain_fl.cli.predict import _row_answers
    from llmchain_fl.cli.trained import find_adapter, open_trained, own_columns, task_of, told_columns
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.core.tasks.kind import task_kind
    from llmchain_fl.data.source import read_rows
    from llmchain_fl.label import Told, write_private
    from llmchain_fl.label import queue as asked_about
    from llmchain_fl.label import sure as known

    folder = find_adapter(run)
    kind, wanted = task_kind(task_of(folder).kind), [out for out in (queue, sure) if out is not None]
    faults = [f"{out} is there already: name a new file" for out in wanted if out.exists()]
    faults += [] if wanted else ["give --queue, --sure, or both"]
    faults += [] if kind.labelled else [f"records of a {task_of(folder).kind} have no single label to ask for"]
    if faults:
        raise ConfigError(faults)
    mapping = {
        ours: theirs for ours, theirs in (own_columns(folder) | told_columns(columns)).items() if ours != "label"
    }
    mapping = {ours: theirs for ours, theirs in mapping.items() if ours in (*kind.asked, "person")}
    rows = read_rows(file, mapping=mapping, required=kind.asked, split="train", seed=1).records
    _, task = open_trained(folder)
    answers, limits = list(_row_answers(task, rows, kind.asked, 2)), Told(below, at_least, most)
    bare = [{column: cell for column, cell in row.items() if column != "label"} for row in rows]
    if queue is not None:
        chosen = asked_about(bare, answers, limits)
        write_private(queue, [{**bare[k], "label": "", "suggested": answers[k][0][0]} for k in chosen])
        typer.echo(f"{queue}: {len(chosen)} of {len(rows)} records to label; fill in `label`, then train on the file")
    if sure is not None:
        chosen = known(answers, limits)
        write_private(sure, [{**bare[k], "label": answers[k][0][0], "labelled_by": "adapter"} for k in chosen])
        typer.echo(f"{sure}: {len(chosen)} of {len(rows)} records labelled by the adapter")
