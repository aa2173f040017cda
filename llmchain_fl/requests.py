"""What the server asks of a site, as Flower records; a site reads them in ``core/wire.py``."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.array_record import pack
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.core.secure.query import SecureQuery


class Packed:
    """Arrays as records, each written once: all sites of a shape are sent the same."""

    def __init__(self) -> None:
        self._records: dict[int, tuple[Arrays, ArrayRecord]] = {}

    def __call__(self, arrays: Arrays) -> ArrayRecord:
        """The record of these very arrays, which nobody changes any more."""
        if id(arrays) not in self._records:
            self._records[id(arrays)] = arrays, pack(arrays)
        return self._records[id(arrays)][1]


def write_train_task(task: TrainTask, packed: Callable[[Arrays], ArrayRecord] = pack) -> RecordDict:
    """``TrainTask`` -> records; ``packed`` writes its arrays."""
    config = ConfigRecord(
        {
            "run": task.run,
            "round": task.round,
            "stage": task.stage,
            "stage-name": task.stage_name,
            "lr": task.lr,
            "work": task.work,
            "receipt": task.receipt,
            "federation": task.federation,
            "clip": task.clip,
            "trains": list(task.trains),
            "keeps": list(task.keeps),
            "earlier": list(task.earlier),
            "sums": task.sums,
        }
    )
    content = RecordDict({"arrays": packed(task.arrays), "config": config})
    if task.guard_arrays:
        content["guard"] = packed(task.guard_arrays)
    if task.secure is not None:
        lists = {"directory": list(task.secure.directory), "shares": list(task.secure.shares)}
        content["secure"] = ConfigRecord({**lists, "shared": list(task.secure.shared)})
    return content


def write_score_task(task: ScoreTask) -> RecordDict:
    """``ScoreTask`` -> records."""
    config = ConfigRecord(
        {
            "round": task.round,
            "stages": list(task.stages),
            "work": task.work,
            "run": task.run,
            "receipt": task.receipt,
            "federation": task.federation,
            "keeps": list(task.keeps),
        }
    )
    return RecordDict({"arrays": pack(task.arrays), "config": config})


def write_secure_query(query: SecureQuery) -> RecordDict:
    """``SecureQuery`` -> records."""
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(query).items()}
    return RecordDict({"config": ConfigRecord(fields)})


def size_of(task: TrainTask) -> int:
    """Bytes that one site receives for one round."""
    payloads = () if task.secure is None else (*task.secure.directory, *task.secure.shares)
    return _bytes_of(task.arrays) + _bytes_of(task.guard_arrays) + len(task.work.encode()) + sum(map(len, payloads))


def _bytes_of(arrays: Arrays) -> int:
    return sum(value.nbytes for value in arrays.values())
