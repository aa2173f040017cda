"""Messages that no server of this project sends: seeded mutants of good ones, for tests and benchmarks of a site.

Each mutant is a good message in which one to three things were changed: a field's value or type, a part of the work
description, an array's bytes, shape, type or values, a record that is missing or too much.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from safetensors import SafetensorError

from llmchain_fl.core.array_record import pack, unpack
from llmchain_fl.core.errors import WireError

ODD: tuple[Any, ...] = (
    *(0, -1, 1, 2, 7, 2**31 - 1, 2**63 - 1, -(2**63), 10**12),
    *(0.0, -0.0, -1.0, 0.5, 1e-300, 1e300, 1e38, float("nan"), float("inf"), float("-inf")),
    *("", " ", "x", "../x", "a/b", "\x1b[2J", "line\nbreak", "\u202e", "x" * 65, "x" * 5000, "lora_B", "none"),
    *(True, False, b"", b"\x00\xff", [], [""], ["x"], ["lora_A"], [1], [0.5], [b"x"], ["s1"] * 9),
)
"""Values that a field of a message may have."""
ODD_JSON: tuple[Any, ...] = (*(value for value in ODD if "b'" not in repr(value)), None, {}, {"x": 1}, [[]], [None])
DTYPES = ("f4", "f8", "f2", "i4", "i8", "u1", "?", "U3", "c8", ">f4", "S4")


def mutants(good: Sequence[RecordDict], seed: int, count: int) -> Iterator[tuple[int, RecordDict]]:
    """(which good message it was made of, the mutant); the same for the same seed."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        which = int(draw.integers(len(good)))
        content = copy.deepcopy(good[which])
        for _ in range(int(draw.integers(1, 4))):
            change = CHANGES[int(draw.integers(len(CHANGES)))]
            change(content, draw)
        yield which, content


def _field(content: RecordDict, draw: np.random.Generator) -> None:
    config = content.config_records.get("config")
    if config:
        _set(config, _one(list(config), draw), _one(ODD, draw))


def _no_field(content: RecordDict, draw: np.random.Generator) -> None:
    config = content.config_records.get("config")
    if config:
        del config[_one(list(config), draw)]


def _work(content: RecordDict, draw: np.random.Generator) -> None:
    """One place in the work description gets another value, goes, or is new."""
    config = content.config_records.get("config")
    try:
        tree = json.loads(str(config["work"])) if config else None
    except (KeyError, ValueError):
        return
    places = list(_places(tree))
    if not places or config is None:
        return
    node, key = places[int(draw.integers(len(places)))]
    if draw.random() < 0.1 and isinstance(node, dict):
        del node[key]
    elif draw.random() < 0.1 and isinstance(node, dict):
        node["unknown"] = _one(ODD_JSON, draw)
    else:
        node[key] = _one(ODD_JSON, draw)
    config["work"] = json.dumps(tree)


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    items = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    for key, value in items:
        yield node, key
        yield from _places(value)


def _array(content: RecordDict, draw: np.random.Generator) -> None:
    """One array of the message is another one, or the bytes of all are."""
    records = [name for name, record in content.array_records.items() if record]
    if not records:
        return
    part = _one(records, draw)
    if draw.random() < 0.3:
        content[part] = _bytes(content.array_records[part], draw)
        return
    try:
        arrays = unpack(content.array_records[part])
        _other_array(arrays, draw)
        content[part] = pack(arrays)
    except (WireError, ValueError, SafetensorError):
        return


def _other_array(arrays: dict[str, NDArray[np.generic]], draw: np.random.Generator) -> None:
    name = _one(sorted(arrays), draw)
    value, kind = arrays[name], int(draw.integers(5))
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays["unknown.lora_B"] = np.ones((2, 2), np.float32)
    elif kind == 2:
        arrays[name] = value[None] if draw.random() < 0.5 else value.reshape(-1)
    elif kind == 3:
        arrays[name] = np.zeros(value.shape, dtype=str(_one(DTYPES, draw)))
    else:
        odd = _one((np.nan, np.inf, 3e38, 1e20, -1e-38, 0.0), draw)
        arrays[name] = np.full(value.shape, odd, np.float32)


def _bytes(record: ArrayRecord, draw: np.random.Generator) -> ArrayRecord:
    """Cut, lengthened, one byte another one, or called by another format."""
    (name, array), kind = next(iter(record.items())), int(draw.integers(4))
    data = bytearray(array.data)
    if kind == 0:
        data = data[: int(draw.integers(len(data) + 1))]
    elif kind == 1:
        data += b"\x00" * int(draw.integers(1, 99))
    elif data:
        data[int(draw.integers(min(len(data), 200)))] = int(draw.integers(256))
    stype = array.stype if kind < 3 else _one(("numpy.ndarray", "", "pickle"), draw)
    return ArrayRecord({name: Array("uint8", (len(data),), stype, bytes(data))})


def _payload(content: RecordDict, draw: np.random.Generator) -> None:
    """Arrays for guards: of names that guards know, and of any."""
    names = (
        "route.keys",
        "route.tau",
        "slots.pair",
        "teacher.scale",
        "teacher.x.lora_B",
        "anchor.x.lora_A",
        "olora-rows.x",
    )
    shape = tuple(int(n) for n in draw.integers(0, 5, size=int(draw.integers(0, 4))))
    made = {str(_one(names, draw)): np.asarray(draw.normal(size=shape), np.float32) for _ in range(3)}
    content["guard"] = pack(made)


def _record(content: RecordDict, draw: np.random.Generator) -> None:
    """A whole record goes, or one too many comes."""
    if draw.random() < 0.5 and len(content):
        del content[_one(list(content), draw)]
    else:
        content["more"] = ConfigRecord({"x": 1})


def _set(config: ConfigRecord, name: str, value: Any) -> None:
    try:
        config[name] = value
    except (TypeError, ValueError):  # Flower's own record does not take it
        return


def _one(values: Sequence[Any], draw: np.random.Generator) -> Any:
    return values[int(draw.integers(len(values)))]


Change = Callable[[RecordDict, np.random.Generator], None]
CHANGES: tuple[Change, ...] = (_field, _field, _no_field, _work, _work, _work, _array, _array, _payload, _record)
