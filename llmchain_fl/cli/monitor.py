"""``llmchain-fl monitor FILE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[Path, typer.Argument(help="The monitor's file (monitor.toml).")] = Path("monitor.toml"),
) -> None:
    """Watch how often a label comes, topic by topic, in a stream of texts of this site; say when that changes.

    Ends with the stream, or at Ctrl-C. Nothing of the stream leaves: an alarm has counts and rates, no text.
    """
    from llmchain_fl.core.printable import printable
    from llmchain_fl.monitor.run import watch_stream
    from llmchain_fl.monitor.settings import read_settings

    watch = watch_stream(read_settings(file), lambda line: typer.echo(printable(line)))
    typer.echo(f"{watch.texts} texts, {watch.windows} windows, {len(watch.notices)} notices")
    if watch.bad_lines:
        typer.echo(f"{watch.bad_lines} lines could not be read and were left out", err=True)
