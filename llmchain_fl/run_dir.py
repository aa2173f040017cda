"""A run's directory: the one file that knows which file of a run lies where (``README`` lists them).

Whole files are replaced by rename, so a reader sees the old one or the new one; ``metrics.jsonl`` is the only file
that grows (``metrics_file.py``).
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from llmchain_fl import metrics_file
from llmchain_fl.atomic_file import atomic_write, write_json
from llmchain_fl.core.errors import RunError

__all__ = ["RunDir", "atomic_write", "fresh", "write_json"]

LOCK = ".lock"
README = """\
This directory holds one run of llmchain_fl.

config.toml     the settings of the run, as resolved, defaults included
metrics.jsonl   every measurement, one JSON object per line (null: the value was no finite number)
privacy.json    the privacy plan, and what each site has spent of it
audit/          the coordinator's audit log: llmchain-fl audit-log show
report.html     the report: open it in any browser, no network is needed
adapter/        the latest serving adapter, in peft format
stages/         the adapter as it was at the end of each stage: stages/<NN-name>/adapter/
events/         the same measurements for TensorBoard: tensorboard --logdir events
state/          what a resumed run needs; do not edit
settings/       the settings that the run had before it went on with others, each named by its SHA-256
changes.jsonl   what was changed in the settings when the run went on or was extended, and after which round
next-stage      written by the operator: names of stages that are over (stream.boundaries = "announced")
sites/          a simulation only: the simulated sites' own files, which in a real run never leave a site
"""


def fresh(base: Path, scenario: str) -> Path:
    """A name for a new run, ``base/<scenario>-<n>``, one above the highest n there; nothing is made on disk."""
    name = _slug(scenario)
    taken = [p.name.removeprefix(f"{name}-") for p in _listing(base) if p.name.startswith(f"{name}-")]
    return base / f"{name}-{1 + max((int(n) for n in taken if n.isascii() and n.isdigit()), default=0)}"


@dataclass(frozen=True)
class RunDir:
    """One run's directory; make one with :meth:`create` or :meth:`open`."""

    path: Path

    @classmethod
    def create(cls, path: Path, config_toml: str) -> RunDir:
        """A new run directory.

        Args:
            path: must not exist yet, or be an empty folder.
            config_toml: the settings as resolved, TOML text.

        Raises:
            RunError: something is there already.
        """
        run = cls(Path(path))
        if run.path.exists() and (not run.path.is_dir() or _listing(run.path)):
            raise RunError(
                f"{run.path} is there already and not empty",
                remedy="name another directory, resume the run that is there, or move it away",
            )
        for folder in (run.state, run.sites):
            folder.mkdir(parents=True, exist_ok=True)
        atomic_write(run.path / "README.txt", README.encode())
        atomic_write(run.config, config_toml.encode())
        atomic_write(run.metrics, b"")  # last: from here on it is a run
        return run

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """The run at ``path``.

        Raises:
            RunError: nothing is there, or what is there is not a run; the nearest run is named.
        """
        path = Path(path)
        if _is_run(path):
            return cls(path)
        near = _nearest(path)
        fault = (
            "is not the directory of a run (no config.toml with metrics.jsonl)" if path.exists() else "does not exist"
        )
        remedy = f"did you mean {near}?" if near else "name the directory that a run has printed as its output"
        raise RunError(f"{path} {fault}", remedy=remedy)

    @property
    def config(self) -> Path:
        """The settings as resolved, TOML."""
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        """Every measurement, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """TensorBoard's folder."""
        return self.path / "events"

    @property
    def adapter(self) -> Path:
        """The latest serving adapter, peft format."""
        return self.path / "adapter"

    @property
    def privacy(self) -> Path:
        """The privacy plan and what each site has spent."""
        return self.path / "privacy.json"

    @property
    def audit(self) -> Path:
        """The folder of the coordinator's audit log."""
        return self.path / "audit"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def state(self) -> Path:
        """What a resumed run needs."""
        return self.path / "state"

    @property
    def changes(self) -> Path:
        """What was changed in the settings of a run that went on, one JSON object per line."""
        return self.path / "changes.jsonl"

    @property
    def earlier(self) -> Path:
        """Settings that the run had before it went on with others: ``SHA-256.toml`` each."""
        return self.path / "settings"

    @property
    def begun(self) -> bool:
        """Whether sites may have been asked: from then on a run can be gone on with, and is not thrown away."""
        return bool(_listing(self.state)) or any(self.sites.glob("*/state/**/events.jsonl"))

    def discard(self) -> bool:
        """Remove a run that has not begun; one that has, or that another process is at work on, stays."""
        if self.begun:
            return False
        try:
            with self.alone():
                shutil.rmtree(self.path)
        except RunError:
            return False
        return True

    @property
    def sites(self) -> Path:
        """The simulated sites' own files."""
        return self.path / "sites"

    def stage_adapter(self, index: int, name: str) -> Path:
        """``stages/<NN-name>/adapter``; ``index`` counts from 0, ``name`` is made safe for a path."""
        return self.path / "stages" / f"{index:02d}-{_slug(name)}" / "adapter"

    def append_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        """Adds rows to the metrics and has them on disk when it returns. A torn last line is cut off first.

        Raises:
            RunError: a row has no round, metric or value; none of the rows is written.
        """
        metrics_file.append(self.metrics, rows)

    def rows(self, upto_round: int | None = None) -> list[dict[str, Any]]:
        """The rows in the order written, of all rounds or of rounds ``<= upto_round``.

        Raises:
            RunError: a line other than the last one is damaged; the line number is named.
        """
        rows = (row for _, row in metrics_file.lines(self.metrics))
        return [row for row in rows if upto_round is None or row["round"] <= upto_round]

    def truncate_after(self, round: int) -> None:
        """Drops all rows of rounds later than ``round``."""
        self._keep_rows(lambda row: row["round"] <= round)

    def read_changes(self) -> list[dict[str, Any]]:
        """What was changed in the settings when the run went on."""
        text = self.changes.read_text(encoding="utf-8") if self.changes.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def drop(self, metric: str) -> None:
        """Drops all rows of one metric."""
        self._keep_rows(lambda row: row["metric"] != metric)

    def _keep_rows(self, stays: Callable[[dict[str, Any]], bool]) -> None:
        """The lines that stay are kept byte for byte."""
        lines = [line + b"\n" for line, row in metrics_file.lines(self.metrics) if stays(row)]
        atomic_write(self.metrics, b"".join(lines))

    def write_settings(self, config_toml: str, changes: Sequence[Mapping[str, Any]]) -> None:
        """Replaces ``config.toml``, which is kept, and what is said of its changes."""
        held = self.config.read_bytes()
        if held != config_toml.encode():
            atomic_write(self.earlier / f"{hashlib.sha256(held).hexdigest()}.toml", held)
        atomic_write(self.config, config_toml.encode())
        lines = [json.dumps(change, ensure_ascii=False, default=str) + "\n" for change in changes]
        atomic_write(self.changes, "".join(lines).encode())

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Whoever changes the run holds its lock; it is free again when the process ends, however it ends.

        Raises:
            RunError: another process holds it.
        """
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"another process is at work on {self.path}", remedy="wait until it is done, or stop it first"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def write_privacy(self, privacy: dict[str, Any]) -> None:
        """Replaces ``privacy.json``.

        Raises:
            RunError: the run is private, and delta, unit or accountant is missing: an epsilon alone says nothing.
        """
        lacking = [key for key in ("delta", "unit", "accountant") if privacy.get(key) is None]
        if privacy.get("private") and lacking:
            raise RunError(f"privacy.json without {', '.join(lacking)}", remedy="state all three beside every epsilon")
        write_json(self.privacy, privacy)

    def read_privacy(self) -> dict[str, Any]:
        """What ``privacy.json`` says; an empty dict where there is none."""
        try:
            tree = json.loads(self.privacy.read_bytes())
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError):
            tree = None
        if not isinstance(tree, dict):
            raise RunError(f"{self.privacy} is damaged", remedy="restore it from the run's state or a backup")
        return tree


def how_on_flower(run: RunDir) -> str:
    """The command that goes on with a run of a SuperLink."""
    return f"flwr run . FEDERATION --stream --run-config 'resume=true out=\"{run.path.resolve()}\"'"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"


def _is_run(path: Path) -> bool:
    return (path / "config.toml").is_file() and (path / "metrics.jsonl").is_file()


def _listing(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(folder.iterdir())
    return []


def _nearest(path: Path) -> Path | None:
    """The run that was probably meant: around, inside or beside ``path``, closest name first, else the latest."""
    around = [folder for folder in path.parents if _is_run(folder)]
    if around:
        return around[0]
    for folder in (path, path.parent, path.parent / "runs"):
        runs = {p.name: p for p in _listing(folder) if _is_run(p)}
        if runs:
            close = difflib.get_close_matches(path.name, runs, n=1, cutoff=0.3)
            return runs[close[0]] if close else max(runs.values(), key=lambda p: (p / "metrics.jsonl").stat().st_mtime)
    return None
