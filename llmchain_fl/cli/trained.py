"""An adapter of a run: found without torch, opened with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmchain_fl.core.errors import ConfigError, LlmchainError, ModelError, RunError

if TYPE_CHECKING:
    from llmchain_fl.core.tasks.base import Task
    from llmchain_fl.core.work import WorkSpec


def find_adapter(path: Path) -> Path:
    """The adapter folder that is meant. ``path``: it, or a run directory (then the latest).

    Raises:
        RunError: there is none yet, or no run.
    """
    from llmchain_fl.run_dir import RunDir

    if (path / "work.json").is_file():
        return path
    folder = RunDir.open(path).adapter
    stages = sorted(path.glob("stages/*/adapter"))
    if not folder.is_dir() and stages:
        folder = stages[-1]
    if not folder.is_dir():
        raise RunError(f"{path} has no adapter yet", remedy=f"finish it: llmchain-fl simulate --resume {path}")
    return folder


@dataclass(frozen=True)
class TaskRead:
    """What the work description of an adapter says of its task."""

    kind: str
    labels: list[str]


def task_of(adapter: Path) -> TaskRead:
    """The task of an adapter, by its ``work.json``.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        task = json.loads((adapter / "work.json").read_text(encoding="utf-8"))["task"]
        return TaskRead(str(task["kind"]), [str(name) for name, _ in task["labels"]])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        fault = f"{adapter} holds no adapter that can be read: its work.json is damaged"
    raise ModelError(fault, remedy="restore the folder; it was changed by hand or damaged")


def told_columns(pairs: list[str] | None) -> dict[str, str]:
    """What ``--column text=utterance`` says.

    Raises:
        ConfigError: a pair without an equals sign.
    """
    wrong = [pair for pair in pairs or [] if "=" not in pair]
    if wrong:
        raise ConfigError([f"--column {pair!r} is not of the form name=column" for pair in wrong])
    return dict(pair.split("=", 1) for pair in pairs or [])


def own_columns(adapter: Path) -> dict[str, str]:
    """Which column holds what, as the run of this adapter has it; empty where its run is not here."""
    from llmchain_fl.config.read import read_config
    from llmchain_fl.run_dir import RunDir

    columns: dict[str, str] = {}
    try:
        run = next((RunDir.open(folder) for folder in adapter.parents if (folder / "metrics.jsonl").is_file()), None)
        columns = dict(read_config(run.config).data.columns) if run else {}
    except LlmchainError:  # a run of another version; its adapter may well be readable
        columns = {}
    columns.pop("person", None)
    return columns


def open_trained(path: Path) -> tuple[WorkSpec, Task]:
    """The task with the adapter loaded. ``path``: a run directory, or an adapter folder.

    Raises:
        RunError: there is no adapter yet.
        ModelError: the base cannot be loaded, or the adapter does not fit it.
    """
    folder = find_adapter(path)  # before torch is imported
    from llmchain_fl.adapter.files import read_adapter
    from llmchain_fl.adapter.slots_file import read_slots
    from llmchain_fl.core.work import open_work

    work, arrays = read_adapter(folder)
    resident, task = open_work(work.resident, work.task)
    resident.reset()
    resident.load(arrays)
    slots = read_slots(folder, arrays)
    if slots is not None:
        resident.load(slots.arrays())
    return work, task
