"""``slots.safetensors``: which rows of a written adapter belong to which stage, and how a text chooses among them.

The plain files beside it hold the *sum* of the slots, laid side by side: ``A = [A_1; A_2; ..]``, ``B = [B_1, B_2, ..]``
(``PeftModel.from_pretrained`` reads it, and gives every text the sum: peft's format cannot choose). This file says
where one slot ends and the next begins, so that a slot can be taken out, and, with the guard ``route``, holds its keys,
so that ``predict`` and ``evaluate`` choose as the run did.

=========  ===========  ===========================================================
tensor     shape        meaning
=========  ===========  ===========================================================
rows       [R] int64    stage of each row of A and column of B: 1 is ``stages[0]``
keys       [K, H]       with ``route`` only; row i belongs to ``stages[i]``
centre     [H]          with ``route`` only
tau        [1]          with ``route`` only
=========  ===========  ===========================================================

In its header: the names of the stages, and the content hash of the adapter it belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.adapter.routing import FOLD, PAIR
from llmchain_fl.core.adapter.value import KEYS, Arrays, is_beside
from llmchain_fl.core.errors import ModelError

NAME = "slots.safetensors"
_REMEDY = "restore the folder; it was changed by hand or damaged"


@dataclass(frozen=True)
class Slots:
    """The slots of an adapter.

    Attributes:
        stages: names, in the order of the numbers in ``rows``.
        rows: int64 [R], stage (from 1) of each row of every lora_A and column of every lora_B.
        route: ``route.*`` arrays; empty where everybody gets the sum.
    """

    stages: tuple[str, ...]
    rows: NDArray[np.int64]
    route: Arrays

    @property
    def held(self) -> tuple[str, ...]:
        """Stages that have a row."""
        return tuple(stage for number, stage in enumerate(self.stages, 1) if (self.rows == number).any())

    def arrays(self) -> Arrays:
        """For ``Resident.load``, beside the plain arrays."""
        return {PAIR: self.rows.astype(np.float32), **self.route} if self.route else {}


def split(arrays: Mapping[str, NDArray[np.float32]], stages: Sequence[str]) -> tuple[Arrays, Slots | None]:
    """(the adapter, what stands beside it) of a serving adapter; None without slots.

    Args:
        arrays: with ``slots.pair`` and ``slots.fold`` among them if there are slots. The plain adapter that ``serving``
            makes of them begins with the pair; the fold follows.
        stages: names of all stages in the order taught.
    """
    plain = {name: value for name, value in arrays.items() if not is_beside(name)}
    if PAIR not in arrays:
        return plain, None
    rows = np.concatenate([arrays[PAIR], arrays.get(FOLD, arrays[PAIR][:0])]).astype(np.int64)
    route = {name: value for name, value in arrays.items() if name.startswith("route.")}
    return plain, Slots(tuple(stages[: int(rows.max())]), rows, route)


def write_slots(folder: Path, slots: Slots | None, content: str) -> None:
    """Beside the adapter of content hash ``content`` in ``folder``; None takes an old file away."""
    if slots is None:
        (folder / NAME).unlink(missing_ok=True)
        return
    tensors = {"rows": slots.rows, **{name.removeprefix("route."): v for name, v in slots.route.items()}}
    metadata = {"stages": json.dumps(slots.stages), "content": content}
    atomic_write(folder / NAME, save({name: np.ascontiguousarray(v) for name, v in tensors.items()}, metadata=metadata))


def read_slots(folder: Path, arrays: Arrays) -> Slots | None:
    """What stands beside the adapter ``arrays`` in ``folder``; None without the file.

    Raises:
        ModelError: it is damaged, belongs to another adapter, or its names and sizes do not fit.
    """
    file = folder / NAME
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
        stages = json.loads(metadata["stages"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(f"{file} cannot be read", remedy=_REMEDY) from error
    if metadata.get("content") != digest(arrays):
        raise ModelError(f"{file} belongs to another adapter", remedy=_REMEDY)
    slots = _checked(file, stages, tensors, arrays)
    return replace(slots, route={f"route.{name}": value for name, value in tensors.items() if name != "rows"})


def _checked(file: Path, stages: object, tensors: Arrays, arrays: Arrays) -> Slots:
    named = isinstance(stages, list) and all(isinstance(name, str) for name in stages)
    if not isinstance(stages, list) or not named or len(set(stages)) != len(stages):
        raise ModelError(f"{file} does not name its stages, each once", remedy=_REMEDY)
    ranks = {value.shape[0] for name, value in arrays.items() if name.endswith(".lora_A")}
    rows = tensors.get("rows", np.zeros(0))
    if {rows.shape} != {(rank,) for rank in ranks} or not np.isin(rows, range(1, len(stages) + 1)).all():
        message = f"{file} has {rows.shape} rows of {len(stages)} stages; the adapter has the rank {sorted(ranks)}"
        raise ModelError(message, remedy=_REMEDY)
    if set(tensors) not in ({"rows"}, {"rows", "keys", "centre", "tau"}):
        raise ModelError(f"{file} holds the tensors {', '.join(sorted(tensors))}", remedy=_REMEDY)
    if "keys" in tensors and len(tensors["keys"]) != len(stages):
        raise ModelError(f"{file} has {len(tensors['keys'])} keys for {len(stages)} stages", remedy=_REMEDY)
    return Slots(tuple(stages), rows.astype(np.int64), {})


def without_stage(arrays: Arrays, slots: Slots, stage: str) -> tuple[Arrays, Slots]:
    """The adapter of the other slots, their numbers untouched bit for bit, and what stands beside it.

    A text that had chosen the slot chooses among the others. A head is no slot and stays as it is.

    Args:
        arrays: by our names, or by peft's (``.weight`` at the end).
        slots: of these arrays.
        stage: whose slot goes.

    Raises:
        ModelError: there is no such slot, or no other.

    | case | result |
    |---|---|
    | the slot's B is 0 | the same sum of slots |
    | two slots | the other one, a plain adapter |
    """
    if stage not in slots.held or len(slots.held) < 2:
        message = f'slot "{stage}" cannot be taken out of the slots {", ".join(slots.held)}'
        raise ModelError(message, remedy="name one of several slots")
    number = slots.stages.index(stage) + 1
    stay = slots.rows != number
    rows, route = slots.rows[stay], dict(slots.route)
    if route:
        route[KEYS] = np.delete(route[KEYS], number - 1, axis=0)
    names = tuple(name for name in slots.stages if name != stage)
    left = {name: _cut(name, value, stay) for name, value in arrays.items()}
    return left, Slots(names, np.where(rows > number, rows - 1, rows), route)


def _cut(name: str, value: NDArray[np.float32], stay: NDArray[np.bool_]) -> NDArray[np.float32]:
    ending = name.removesuffix(".weight").rpartition(".")[2]
    if ending == "lora_A":
        return value[stay]
    return np.ascontiguousarray(value[:, stay]) if ending == "lora_B" else value.copy()
