"""The end of a run in the terminal: plain sentences, key numbers, and two runs beside each other."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmchain_fl.core.printable import printable
from llmchain_fl.report.tables import compare_table, summary_table
from llmchain_fl.report.verdict import verdict
from llmchain_fl.run_dir import RunDir


def show_summary(run: RunDir) -> None:
    """What was learned, forgotten and spent, and where to read more."""
    console, rows, privacy = Console(), run.rows(), run.read_privacy()
    console.print()
    for sentence in verdict(rows, privacy):
        console.print(f"  {printable(sentence)}", highlight=False, markup=False)
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in summary_table(rows, privacy):
        table.add_row(Text(printable(name)), Text(printable(value)))
    console.print(table)
    adapter = run.adapter if run.adapter.is_dir() else "none was written"
    console.print(f"  report: {run.report}\n  adapter: {adapter}\n", highlight=False, markup=False, soft_wrap=True)


def show_comparison(first: RunDir, second: RunDir, change: str) -> None:
    """Two runs in one table."""
    console = Console()
    header, *lines = compare_table(first.rows(), second.rows(), ("this run", "changed"))
    title = Text(f"the same run once more, changed: {printable(change)}")
    table = Table(title=title, title_justify="left", padding=(0, 2))
    for column in header:
        table.add_column(Text(column))
    for line in lines:
        table.add_row(*(Text(printable(cell)) for cell in line))
    console.print(table)
    console.print(
        f"  reports: {first.report}\n           {second.report}\n", highlight=False, markup=False, soft_wrap=True
    )
