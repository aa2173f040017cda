"""Tensors that somebody else wrote: names, shapes, sizes and finiteness are checked before anything is made of them.

A safetensors file is 8 bytes of length, a JSON header, and the values of all tensors, one after the other. The header
is read here, within bounds, in Python's whole numbers: no shape can overflow. An array is a view of the bytes at hand;
nothing is allocated on the word of a header.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.hub.refused import refuse
from llmchain_fl.hub.strict_json import parse_object

MOST_HEADER = 8 * 2**20
MOST_TENSORS, MOST_DIMENSION = 20_000, 2**31
TYPES: Mapping[str, np.dtype[Any]] = MappingProxyType({"F32": np.dtype("<f4"), "I64": np.dtype("<i8")})
_PREFIX, _ENDING = "base_model.model.", ".weight"
_FACTOR = re.compile(r"(?P<layer>[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)\.(?P<factor>lora_[AB])")


@dataclass(frozen=True)
class Place:
    """Where a tensor lies among the values."""

    type: np.dtype[Any]
    shape: tuple[int, ...]
    start: int


def read_header(data: bytes, file: str) -> tuple[dict[str, Place], int, Mapping[str, str]]:
    """(name -> place, where the values begin, the file's own words).

    ================================================================  ==========
    header                                                            refused
    ================================================================  ==========
    longer than the file or than ``MOST_HEADER``; more tensors than   size
    ``MOST_TENSORS``; a dimension over ``MOST_DIMENSION``
    no JSON, a name twice, other fields, a negative dimension         form
    another number type than float32 or int64                         tensors
    values that overlap, leave a gap, or end elsewhere than the file  tensors
    ================================================================  ==========

    Raises:
        HubError: see the table.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(MOST_HEADER, len(data) - 8):
        raise refuse("size", f"{file} has a header of {length:,} bytes")
    entries = parse_object(data[8 : 8 + length], f"the header of {file}", MOST_HEADER)
    words = entries.pop("__metadata__", {})
    if not isinstance(words, dict) or not all(isinstance(value, str) for value in words.values()):
        raise refuse("form", f"the header of {file} has other words than texts")
    if len(entries) > MOST_TENSORS:
        raise refuse("size", f"{file} has {len(entries):,} tensors, at most {MOST_TENSORS:,}")
    ends, places = [], {}
    for name, entry in entries.items():
        places[name], end = _place(name, entry, file)
        ends.append((places[name].start, end))
    at = 0
    for start, end in sorted(ends):
        if start != at:
            raise refuse("tensors", f"the values of {file} overlap or leave a gap")
        at = end
    if at != len(data) - 8 - length:
        raise refuse("tensors", f"{file} has {len(data) - 8 - length:,} bytes of values, its header says {at:,}")
    return places, 8 + length, words


def _place(name: str, entry: object, file: str) -> tuple[Place, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"} or len(name) > 500:
        raise refuse("form", f"the header of {file} describes a tensor in another way")
    shape, offsets = entry["shape"], entry["data_offsets"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or any(type(one) is not int or one < 0 for one in numbers):
            raise refuse("form", f"the header of {file} has a shape that is none")
    if len(offsets) != 2 or len(shape) > 4 or max(shape, default=0) > MOST_DIMENSION:
        raise refuse("size", f"a tensor of {file} has the shape {shape[:5]}")
    kind = TYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if kind is None:
        raise refuse("tensors", f"a tensor of {file} is neither float32 nor int64")
    if offsets[1] - offsets[0] != math.prod(shape) * kind.itemsize:
        raise refuse("tensors", f"a tensor of {file} has the shape {shape} in {offsets[1] - offsets[0]:,} bytes")
    return Place(kind, tuple(shape), offsets[0]), offsets[1]


def read_arrays(data: bytes, file: str) -> dict[str, NDArray[Any]]:
    """Every tensor as a read-only view of ``data``.

    Raises:
        HubError: as :func:`read_header`; tensors: a value that is not finite.
    """
    places, begin, _ = read_header(data, file)
    arrays = {}
    for name, place in places.items():
        size = math.prod(place.shape)
        value = np.frombuffer(data, place.type, size, begin + place.start) if size else np.zeros(0, place.type)
        if place.type.kind == "f" and not np.isfinite(value).all():
            raise refuse("tensors", f"a tensor of {file} has values that are not finite")
        arrays[name] = value.reshape(place.shape)
    return arrays


def adapter_arrays(weights: bytes, head: bytes | None, work: WorkSpec) -> Arrays:
    """The adapter under this project's names, its shapes those of the work description.

    ==========================================================  ==========
    arrays                                                      refused
    ==========================================================  ==========
    a name that is no LoRA factor of a layer; A without B       tensors
    a rank other than that of ``work.json``                     tensors
    a head where the task has none, or of other sizes           tensors
    no layer at all                                             tensors
    ==========================================================  ==========

    The inner sizes of the layers are the base model's: it refuses others when the adapter is attached.

    Raises:
        HubError: see the table, and :func:`read_arrays`.
    """
    arrays: Arrays = {}
    for name, value in read_arrays(weights, "adapter_model.safetensors").items():
        short = name.removeprefix(_PREFIX).removesuffix(_ENDING)
        if name != f"{_PREFIX}{short}{_ENDING}" or not _FACTOR.fullmatch(short) or value.dtype != TYPES["F32"]:
            raise refuse("tensors", "adapter_model.safetensors holds a tensor that is no LoRA factor")
        arrays[short] = value
    _check_pairs(arrays, work.adapter.rank)
    if (head is not None) != bool(work.task.head_size):
        raise refuse("tensors", "a trained head where work.json has none, or none where it has one")
    if head is not None:
        size = work.task.head_size
        wanted = {"head.weight": (size, -1), "head.bias": (size,)}
        head_arrays = read_arrays(head, "head.safetensors")
        shapes = {name: (value.shape[0], -1) if value.ndim == 2 else value.shape for name, value in head_arrays.items()}
        if shapes != wanted or any(value.dtype != TYPES["F32"] for value in head_arrays.values()):
            raise refuse("tensors", f"head.safetensors does not fit {size} labels")
        arrays |= head_arrays
    return arrays


def _check_pairs(arrays: Arrays, rank: int) -> None:
    layers = {name.rpartition(".")[0] for name in arrays}
    for layer in layers:
        first, second = arrays.get(f"{layer}.lora_A"), arrays.get(f"{layer}.lora_B")
        if first is None or second is None or first.ndim != 2 or second.ndim != 2:
            raise refuse("tensors", "a layer has one factor of two, or a factor that is no matrix")
        if first.shape[0] != rank or second.shape[1] != rank or not first.size or not second.size:
            message = f"a layer has factors of shape {first.shape} and {second.shape}; work.json has the rank {rank}"
            raise refuse("tensors", message)
    if not layers:
        raise refuse("tensors", "adapter_model.safetensors adapts no layer")
