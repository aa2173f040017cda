"""What the simulator sees of the sites at work and real sites tell nobody: tokens, rows of the metrics.

A site's part is gathered where it trained, in this process or in a worker's, and handed on with its reply. The rows of
a round are written once, when its last reply is there: what a round that broke off had written would be dropped anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from client.site import Site
from client.training import LocalResult
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.metrics_file import by_site
from llmchain_fl.progress import Progress
from llmchain_fl.run_dir import RunDir

Row = dict[str, Any]
RowsOf = Callable[[Site, TrainTask, LocalResult], list[Row]]


@dataclass(frozen=True)
class Seen:
    """One site's training, as whoever computes it sees it."""

    site: str
    tokens: int
    rows: list[Row]


@dataclass
class Watcher:
    """The ``watch`` of a ClientApp of simulated sites: keeps what it saw until it is taken."""

    rows_of: RowsOf
    _seen: list[Seen] = field(default_factory=list)

    def __call__(self, site: Site, task: TrainTask, result: LocalResult) -> None:
        self._seen.append(Seen(site.name, result.tokens, self.rows_of(site, task, result)))

    def taken(self) -> list[Seen]:
        """What was seen since it was last taken."""
        seen, self._seen = self._seen, []
        return seen


class Teller:
    """Tells whoever looks on, and writes the rows of a round at its end.

    Args:
        run: whose metrics.
        progress: told of every site.
    """

    def __init__(self, run: RunDir, progress: Progress) -> None:
        self._run, self._progress, self._rows = run, progress, list[Row]()
        self._last = time.monotonic()

    def tell(self, seen: Iterable[Seen]) -> None:
        """One reply is there, with what was seen of its site."""
        for one in seen:
            now = time.monotonic()
            self._progress.site_finished(one.site, one.tokens, now - self._last)
            self._last = now
            self._rows += one.rows

    def end(self) -> None:
        """All replies of a trip are there."""
        rows, self._rows = self._rows, []
        self._run.append_rows(by_site(rows))
