"""The rows of a run as TensorBoard scalars: ``tensorboard --logdir <run>/events``."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llmchain_fl.metrics_file import declared
from llmchain_fl.report.readings import EVERYTHING, Row
from llmchain_fl.run_dir import RunDir

log = logging.getLogger("llmchain_fl")


class TensorBoardLog:
    """Writes rows as scalars; use it in a ``with`` block, or call :meth:`close`.

    torch and tensorboard are imported when the first object is made, not before.

    Args:
        folder: the run's ``events`` folder.
        resume_after: the last round that counts when a run goes on after a crash; TensorBoard then hides what
            was written of later rounds, as ``RunDir.truncate_after`` drops it.
    """

    def __init__(self, folder: Path, *, resume_after: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = None if resume_after is None else resume_after + 1
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge)

    def write(self, rows: Iterable[Row]) -> None:
        """One scalar a row, at step = round, named by :func:`tag`; flushed when it returns."""
        for row in rows:
            self._writer.add_scalar(tag(row), float(row["value"]), global_step=int(row["round"]))
        self._writer.flush()

    def close(self) -> None:
        """Ends the event file."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_events(run: RunDir) -> None:
    """All rows of a run as one fresh ``events`` folder; a copy, so where it cannot be made a line says so."""
    shutil.rmtree(run.events, ignore_errors=True)
    rows = run.rows()
    try:
        with TensorBoardLog(run.events) as writer:
            writer.write(rows)
    except Exception as error:  # whatever a writer of another package does: metrics.jsonl has everything
        log.warning("no TensorBoard events in %s (%s: %s)", run.events, type(error).__name__, error)


def tag(row: Row) -> str:
    """The scalar's name, ``<scope>/<task or site>/<metric>``.

    ===========================================  ==============================
    row                                          tag
    ===========================================  ==============================
    global, task cards, accuracy                 global/cards/accuracy
    global, task cards, recall, label lost       global/cards/recall/lost
    baseline, task cards, ridge_alone, site-03   baseline/cards/ridge_alone/site-03
    site site-03, bytes_up                       site/site-03/bytes_up
    site site-03, task all, accuracy             site/site-03/accuracy
    site site-03, task cards, accuracy           site/site-03/accuracy/cards
    run, task cards, seconds                     run/all/seconds
    ===========================================  ==============================
    """
    scope, task = str(row.get("scope", "global")), str(row.get("task") or EVERYTHING)
    if scope != "site":
        last = row.get("label") or row.get("site")
        return f"{scope}/{EVERYTHING if scope == 'run' else task}/{row['metric']}" + (f"/{last}" if last else "")
    last = f"/{task}" if declared([row]) and task != EVERYTHING else ""
    return f"site/{row['site']}/{row['metric']}{last}"
