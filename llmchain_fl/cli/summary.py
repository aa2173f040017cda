"""The end of a run in the terminal: plain sentences, key numbers, and two runs beside each other."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmchain_fl.cli.verbosity import quiet
from llmchain_fl.core.printable import printable
from llmchain_fl.report.readings import Readings
from llmchain_fl.report.site_names import with_names
from llmchain_fl.report.stages import came_to
from llmchain_fl.report.tables import compare_table, summary_table
from llmchain_fl.report.verdict import answers, outcome, stopped
from llmchain_fl.run_dir import RunDir


def show_summary(run: RunDir) -> None:
    """The five answers of the report, its key numbers, and where to read more."""
    console, (rows, privacy) = Console(quiet=quiet()), with_names(run)
    readings = Readings(rows)
    heads = [came_to(readings, stage) for stage in readings.stages]
    console.print()
    for sentence in filter(None, [stopped(readings), outcome(readings), *heads]):
        _say(console, f"  {sentence}")
    for answer in answers(rows, privacy):
        console.print()
        _say(console, f"  {answer.question} {answer.short}")
        for line in answer.lines:
            _say(console, f"    {line}")
    console.print()
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in summary_table(rows, privacy):
        table.add_row(Text(printable(name)), Text(printable(value)))
    console.print(table)
    adapter = run.adapter if run.adapter.is_dir() else "none was written"
    console.print(f"  report: {run.report}\n  adapter: {adapter}\n", highlight=False, markup=False, soft_wrap=True)


def show_comparison(first: RunDir, second: RunDir, change: str) -> None:
    """Two runs in one table; no ranking: each is one draw."""
    console = Console(quiet=quiet())
    header, *lines = compare_table(first.rows(), second.rows(), ("this run", "changed"))
    title = Text(f"the same run once more, changed: {printable(change)}")
    table = Table(title=title, title_justify="left", padding=(0, 2))
    for column in header:
        table.add_column(Text(column))
    for line in lines:
        table.add_row(*(Text(printable(cell)) for cell in line))
    console.print(table)
    _say(console, "  ±: what chance can make on so few test records. One run of each says nothing of other seeds.")
    console.print(
        f"  reports: {first.report}\n           {second.report}\n", highlight=False, markup=False, soft_wrap=True
    )


def _say(console: Console, text: str) -> None:
    console.print(printable(text), highlight=False, markup=False, soft_wrap=not console.is_terminal)
