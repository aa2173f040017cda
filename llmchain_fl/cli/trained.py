"""An adapter of a run, ready to be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmchain_fl.core.errors import RunError

if TYPE_CHECKING:
    from llmchain_fl.core.tasks.base import Task
    from llmchain_fl.core.work import WorkSpec


def open_trained(path: Path) -> tuple[WorkSpec, Task]:
    """The task with the adapter loaded. ``path``: a run directory, or an adapter folder.

    Raises:
        RunError: there is no adapter yet.
        ModelError: the base cannot be loaded, or the adapter does not fit it.
    """
    from llmchain_fl.adapter.files import read_adapter
    from llmchain_fl.adapter.slots_file import read_slots
    from llmchain_fl.core.work import open_work
    from llmchain_fl.run_dir import RunDir

    if (path / "work.json").is_file():
        folder = path
    else:
        folder = RunDir.open(path).adapter
        stages = sorted(path.glob("stages/*/adapter"))
        if not folder.is_dir() and stages:
            folder = stages[-1]
        if not folder.is_dir():
            raise RunError(f"{path} has no adapter yet", remedy=f"finish it: llmchain-fl simulate --resume {path}")
    work, arrays = read_adapter(folder)
    resident, task = open_work(work.resident, work.task)
    resident.reset()
    resident.load(arrays)
    slots = read_slots(folder, arrays)
    if slots is not None:
        resident.load(slots.arrays())
    return work, task
