"""The folder of a comparison: which file lies where, and what is finished in it.

::

    OUT/comparison.toml           the comparison in full; another one into the same folder is refused
    OUT/cells/<slug>/             one run's directory each; with cell.json once it is finished
    OUT/logs/                     what the worker processes said
    OUT/results.json, table.md, scores-against-bytes.svg, compare.html
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.compare.outcome import FILE, Outcome, load
from llmchain_fl.compare.plan import Cell, Comparison
from llmchain_fl.compare.read import read_comparison
from llmchain_fl.compare.settings import to_toml
from llmchain_fl.config.read import read_config
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import ConfigError, RunError

BULKY = ("sites", "state", "stages", "events")
"""Parts of a run that nobody reads once its numbers are known."""


@dataclass(frozen=True)
class Folder:
    """One comparison on disk; :func:`open_folder` makes it."""

    path: Path

    @property
    def plan(self) -> Path:
        """The comparison."""
        return self.path / "comparison.toml"

    @property
    def logs(self) -> Path:
        """What the workers said."""
        return self.path / "logs"

    @property
    def results(self) -> Path:
        """Every number."""
        return self.path / "results.json"

    @property
    def table(self) -> Path:
        """The tables, Markdown."""
        return self.path / "table.md"

    @property
    def page(self) -> Path:
        """The page for people."""
        return self.path / "compare.html"

    def plot(self, name: str) -> Path:
        """A plot, SVG."""
        return self.path / f"{name}.svg"

    def of(self, cell: Cell) -> Path:
        """A cell's run directory."""
        return self.path / "cells" / cell.slug

    def finished(self) -> dict[str, Outcome]:
        """Slug -> outcome of every finished cell there is."""
        folders = sorted(path.parent for path in (self.path / "cells").glob(f"*/{FILE}"))
        outcomes = {folder.name: load(folder) for folder in folders}
        return {name: outcome for name, outcome in outcomes.items() if outcome is not None}

    def check_same(self, configs: Mapping[str, RunConfig]) -> None:
        """Refuse to mix runs of different settings.

        Raises:
            RunError: a cell was begun with other settings than it has now (its scenario has changed since).
        """
        for name, config in configs.items():
            begun = self.path / "cells" / name / "config.toml"
            if begun.is_file() and not _is_of(begun, config):
                raise RunError(
                    f"{begun.parent} was begun with other settings: the scenario has changed since",
                    remedy="name another --out, or remove that folder",
                )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else plays in this folder meanwhile.

        Raises:
            RunError: somebody does.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"another comparison is being run in {self.path}", remedy="wait for it, or name another --out"
            ) from None
        try:
            yield
        finally:
            lock.release()


def open_folder(path: Path, comparison: Comparison) -> Folder:
    """The folder, new or found again.

    Raises:
        RunError: it holds something else.
    """
    folder = Folder(path)
    if folder.plan.is_file():
        if not _is_same(folder.plan, comparison):
            raise RunError(f"{path} holds another comparison", remedy="name another --out, or move it away")
        return folder
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"{path} is there already and holds no comparison", remedy="name another --out")
    (path / "cells").mkdir(parents=True, exist_ok=True)
    folder.logs.mkdir(exist_ok=True)
    atomic_write(folder.plan, to_toml(comparison).encode())
    return folder


def tidy(run: Path) -> None:
    """Removes what is bulky of a finished run, simulated records among it; numbers, settings and adapter stay."""
    for name in BULKY:
        shutil.rmtree(run / name, ignore_errors=True)
    (run / "crash.txt").unlink(missing_ok=True)  # of an earlier attempt


def _is_same(plan: Path, comparison: Comparison) -> bool:
    """Whether the file says the same comparison, whatever its name."""
    try:
        return to_toml(read_comparison(plan)) == to_toml(comparison)
    except ConfigError:
        return False


def _is_of(begun: Path, config: RunConfig) -> bool:
    """Settings that were not there when it was begun count as their defaults."""
    try:
        return read_config(begun) == config
    except ConfigError:
        return False
