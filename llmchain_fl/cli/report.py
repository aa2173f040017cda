"""``llmchain-fl report RUN``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(run: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Write report.html of a run anew, and print what it says in short."""
    from llmchain_fl.cli.summary import show_summary
    from llmchain_fl.report.page import write_report
    from llmchain_fl.run_dir import RunDir

    run_dir = RunDir.open(run)
    write_report(run_dir)
    show_summary(run_dir)
