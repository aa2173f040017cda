"""What is seen while a run goes on: a live view in a terminal, one plain line a round anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from llmchain_fl.cli.verbosity import quiet
from llmchain_fl.core.printable import printable
from llmchain_fl.progress import RoundReport, Silent
from llmchain_fl.report.wording import duration, epsilon_text, size


class Clock:
    """Time per round so far -> time left; tokens per second of the present round."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.rounds_timed = 0
        self._seconds = 0.0
        self._tokens = 0
        self._busy = 0.0

    def site(self, tokens: int, seconds: float) -> None:
        """One site is done."""
        self._tokens, self._busy = self._tokens + tokens, self._busy + seconds

    def round(self, seconds: float) -> float:
        """A round is over: tokens per second of its training (0 if nobody counted)."""
        self.rounds_timed, self._seconds = self.rounds_timed + 1, self._seconds + seconds
        rate = self._tokens / self._busy if self._busy else 0.0
        self._tokens, self._busy = 0, 0.0
        return rate

    def left(self, rounds: int) -> float:
        """Seconds for ``rounds`` more."""
        return self._seconds / self.rounds_timed * rounds if self.rounds_timed else 0.0


def round_line(report: RoundReport, tokens_per_second: float, left: float) -> str:
    """One round in one line: round, sites, scores, epsilon with its terms, bytes, speed, time left."""
    scores = "  ".join(f"{task} {value:.3f}" for task, value in report.scores.items())
    parts = [f"round {report.round}/{report.total}", report.stage_name, f"{report.admitted}/{report.asked} sites"]
    if scores:
        parts.append(f"{report.score_name}: {scores}")
    if report.epsilon is not None:
        parts.append(f"epsilon {epsilon_text(report.epsilon, report.privacy)}")
    parts.append(f"up {size(report.bytes_up)}")
    if tokens_per_second:
        parts.append(f"{tokens_per_second:,.0f} tokens/s")
    if report.refused:
        parts.append("refused: " + ", ".join(f"{site} ({reason})" for site, reason in sorted(report.refused.items())))
    if left:
        parts.append(f"{duration(left)} left")
    return printable(" | ".join(parts))


class PlainView(Silent):
    """Plain lines, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console, self._clock = console, Clock()

    def started(self, total: int, done: int, sites: int, privacy: str, upload: str = "") -> None:
        """The first line."""
        again = f", {done} done before" if done else ""
        line = f"{total} rounds{again}, {sites} sites, {privacy}" + (f"; {upload}" if upload else "")
        self._console.print(printable(line), highlight=False, markup=False, soft_wrap=True)

    def site_finished(self, site: str, tokens: int, seconds: float) -> None:
        """Counted, not printed."""
        self._clock.site(tokens, seconds)

    def round_finished(self, report: RoundReport) -> None:
        """One line."""
        rate = self._clock.round(report.seconds)
        line = round_line(report, rate, self._clock.left(report.total - report.round))
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class LiveView(PlainView):
    """The same lines above two moving bars: rounds of the run, sites of the round."""

    def __init__(self, console: Console, bars: Progress) -> None:
        super().__init__(console)
        self._bars = bars
        self._rounds: TaskID | None = None
        self._sites: TaskID | None = None

    def started(self, total: int, done: int, sites: int, privacy: str, upload: str = "") -> None:
        """Set up the bars."""
        super().started(total, done, sites, privacy, upload)
        self._rounds = self._bars.add_task("rounds", total=total, completed=done, note="")
        self._sites = self._bars.add_task("sites", total=sites, note="")

    def round_started(self, number: int, stage_name: str, sites: int) -> None:
        """Empty the bar of sites."""
        if self._sites is not None:
            self._bars.reset(self._sites, total=sites, note=f"round {number}: {printable(stage_name)}")

    def site_finished(self, site: str, tokens: int, seconds: float) -> None:
        """One site further."""
        super().site_finished(site, tokens, seconds)
        if self._sites is not None:
            rate = f"{tokens / seconds:,.0f} tokens/s" if seconds else ""
            self._bars.update(self._sites, advance=1, note=f"{printable(site)}  {rate}")

    def round_finished(self, report: RoundReport) -> None:
        """One line, one round further."""
        super().round_finished(report)
        if self._rounds is not None:
            left = self._clock.left(report.total - report.round)
            self._bars.update(self._rounds, completed=report.round, note=f"{duration(left)} left" if left else "")


@contextmanager
def watching(title: str, path: Path) -> Iterator[PlainView]:
    """The right view for this output."""
    console = Console(quiet=quiet())
    console.print(
        f"{printable(title)}\nrun directory: {printable(str(path))}", highlight=False, markup=False, soft_wrap=True
    )
    if not console.is_terminal:
        yield PlainView(console)
        return
    columns = (
        TextColumn("{task.description:7}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield LiveView(console, bars)
