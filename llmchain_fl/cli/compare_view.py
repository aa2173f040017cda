"""What is seen of a comparison: its cells while they run, its tables at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from llmchain_fl.compare.check import Checked, lacking
from llmchain_fl.compare.outcome import Outcome
from llmchain_fl.compare.plan import Comparison
from llmchain_fl.compare.play import Job
from llmchain_fl.compare.read import shipped
from llmchain_fl.compare.spread import BEST, TIED, Groups, Spread, heading, of_spread
from llmchain_fl.compare.table import Table as Found
from llmchain_fl.compare.table import tables_of
from llmchain_fl.compare.verdict import verdict
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.report.wording import count, duration

WIDE = 160
"""Columns of a log or a pipe."""
LOOKS = {BEST: "bold green", TIED: "green"}


class Plain:
    """One line a cell, for logs and pipes."""

    def __init__(self, console: Console, comparison: Comparison, total: int, jobs: int) -> None:
        self._console, self._comparison, self.total, self._jobs = console, comparison, total, jobs
        self._begun: dict[str, float] = {}
        self._spent = 0.0
        self._share: dict[str, float] = {}
        self.ended_cells = 0
        self.timed = 0

    def began(self, job: Job) -> None:
        """Look at the clock."""
        self._begun[job.cell.slug] = time.monotonic()
        self._share[job.cell.slug] = 0.0

    def moved(self, job: Job, done: int, total: int) -> None:
        """How far a cell is."""
        self._share[job.cell.slug] = done / max(1, total)

    def ended(self, job: Job, outcome: Outcome) -> None:
        """One line."""
        seconds = time.monotonic() - self._begun[job.cell.slug]
        self._share.pop(job.cell.slug, None)
        self.ended_cells += 1
        if outcome.status == "finished":
            self._spent, self.timed = self._spent + seconds, self.timed + 1
        left = self.left()
        self._console.print(
            f"{self.ended_cells}/{self.total} {self._line(job, outcome, seconds)}"
            + (f" | {duration(left)} left" if left else ""),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def left(self) -> float:
        """Seconds left by the mean of the cells so far; 0 where nothing is known, or nothing is left."""
        cells = self.total - self.ended_cells - sum(self._share.values())
        return self._spent / self.timed * cells / min(self._jobs, self.total) if self.timed else 0.0

    def running(self) -> str:
        """What is being played."""
        return "; ".join(f"{name} {share:.0%}" for name, share in self._share.items())

    def _line(self, job: Job, outcome: Outcome, seconds: float) -> str:
        if outcome.status != "finished":
            where = f" ({job.folder})" if outcome.status == "failed" else ""
            return f"{job.cell.title}: {outcome.status}, {outcome.reason}{where}"
        score = self._comparison.score
        text = of_spread(Spread.of([outcome.number(score)]), score, outcome.metrics)
        return f"{job.cell.title}: {heading(score, outcome.metrics)} {text} in {duration(seconds)}"


class Live(Plain):
    """The same lines above a moving bar."""

    def __init__(self, console: Console, comparison: Comparison, total: int, jobs: int, bars: Progress) -> None:
        super().__init__(console, comparison, total, jobs)
        self._bars = bars
        self._bar = bars.add_task("cells", total=total, note="")

    def began(self, job: Job) -> None:
        """Name it."""
        super().began(job)
        self._show()

    def moved(self, job: Job, done: int, total: int) -> None:
        """A round further."""
        super().moved(job, done, total)
        self._show()

    def ended(self, job: Job, outcome: Outcome) -> None:
        """A cell further."""
        super().ended(job, outcome)
        self._show()

    def _show(self) -> None:
        left = self.left()
        note = " | ".join([*([f"{duration(left)} left"] if left else []), self.running()])
        self._bars.update(self._bar, completed=self.ended_cells + sum(self._share.values()), note=note)


@contextmanager
def watching(comparison: Comparison, checked: Checked, folder: Path, jobs: int) -> Iterator[Plain]:
    """The right view for this output."""
    from llmchain_fl.compare.folder import Folder

    console = Console()
    _say(console, f"{comparison.title}\nfolder: {folder}")
    done = Folder(folder).finished()
    todo = sum(cell.slug not in done for cell in checked.cells)
    again = f", {len(checked.cells) - todo} done before" if todo < len(checked.cells) else ""
    _say(console, f"{count(len(checked.cells), 'cell')}{again}, {jobs} at a time")
    for outcome in checked.refused:
        _say(console, f"{outcome.cell.title}: refused, {outcome.reason}")
    if not console.is_terminal:
        yield Plain(console, comparison, todo, jobs)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield Live(console, comparison, todo, jobs, bars)


def show_shipped(*, continual: bool) -> None:
    """Name, title and size of every shipped comparison."""
    from llmchain_fl.compare.read import read_comparison

    console, table = Console(), Table("comparison", "cells", "what it compares", box=None, padding=(0, 2))
    for name, path in shipped(continual=continual).items():
        try:
            comparison = read_comparison(path)
        except ConfigError:
            table.add_row(name, "-", "has faults: see --dry-run")
            continue
        table.add_row(name, str(len(comparison.cells())), comparison.title)
    console.print(table)
    _say(console, "\nrun one: llmchain-fl compare NAME --jobs 2        look first: --dry-run")


def show_cells(comparison: Comparison, checked: Checked) -> None:
    """Every cell and what is refused; nothing is run."""
    console = Console()
    _say(console, f"{comparison.title}\nscenario {comparison.scenario}; {count(len(checked.cells), 'cell')} to run")
    for line in comparison.settings:
        _say(console, f"  every cell: {line}")
    for axis in comparison.axes:
        for label, lines in axis.values.items():
            _say(console, f"  {axis.name} {label}: {', '.join(lines) or 'as the scenario'}")
    for cell in checked.cells:
        _say(console, f"{cell.slug}")
    for outcome in checked.refused:
        _say(console, f"{outcome.cell.slug}: refused, {outcome.reason}")
    for path in lacking(checked):
        _say(console, f"not here: {path}")


def show_results(comparison: Comparison, outcomes: Sequence[Outcome], folder: Path) -> None:
    """The tables, the failures, and where everything is."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    for content in tables_of(comparison, outcomes):
        console.print(_table(content))
        for note in content.notes:
            _say(console, f"  {note}")
        console.print()
    for sentence in verdict(Groups.of(comparison, outcomes)):
        _say(console, f"  {sentence}")
    for outcome in outcomes:
        if outcome.status == "failed":
            _say(
                console,
                f"failed: {outcome.cell.title}: {outcome.reason}\n  look at {folder / 'cells' / outcome.cell.slug}",
            )
    _say(console, f"page: {folder / 'compare.html'}\ntables: {folder / 'table.md'}\nnumbers: {folder / 'results.json'}")


def _table(content: Found) -> Table:
    table = Table(title=content.title, title_justify="left", box=None, padding=(0, 1))
    for name in content.labels:
        table.add_column(name, overflow="fold")
    for name in content.columns:
        table.add_column(name, justify="right", overflow="fold")
    for labels, entries in content.rows:
        table.add_row(*labels, *(Text(str(entry), style=LOOKS.get(entry.mark, "")) for entry in entries))
    return table


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
