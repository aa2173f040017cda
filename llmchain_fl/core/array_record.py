"""Many arrays as one: what a message carries of them.

Flower sends an array of a message in requests of its own, about two for each array and hop. A message here has one
array of bytes, whatever it holds: the arrays in the safetensors format, sorted by type and name, so that equal arrays
are equal bytes.

| case | result |
|---|---|
| no array | no array, after the journey too |
| no number in an array, or no axis | as it was |
| another record than :func:`pack` makes | WireError |
| longer than :data:`MAX_BYTES`, more than :data:`MAX_ARRAYS` arrays, a longer table than they need | WireError |
| bytes that are cut, too many, overlap or name a type that numpy has not | WireError |
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray
from safetensors.numpy import load, save

from llmchain_fl.core.errors import SAME, WireError
from llmchain_fl.core.messages import MAX_ARRAYS, MAX_BYTES

NAME, FORMAT = "packed", "safetensors"
MAX_LINE = 256
"""Most bytes of the table for one array, on average."""


def pack(arrays: Mapping[str, NDArray[np.generic]]) -> ArrayRecord:
    """``arrays`` as the record of a message."""
    data = save({name: np.asarray(value, order="C") for name, value in arrays.items()})
    return ArrayRecord({NAME: Array("uint8", (len(data),), FORMAT, data)})


def unpack(record: ArrayRecord) -> dict[str, NDArray[np.generic]]:
    """The arrays of a record, by name. The record is anybody's.

    Raises:
        WireError: see the table.
    """
    packed = record.get(NAME)
    if packed is None or len(record) != 1 or packed.stype != FORMAT or not isinstance(packed.data, bytes):
        raise WireError("arrays are not packed as one", remedy=SAME)
    size, table = len(packed.data), int.from_bytes(packed.data[:8], "little")
    if size > MAX_BYTES or table > MAX_LINE * MAX_ARRAYS:
        fault = f"a message of {size} bytes with a table of {table}; at most {MAX_BYTES} and {MAX_LINE * MAX_ARRAYS}"
        raise WireError(fault, remedy="use a smaller adapter")
    try:
        arrays = load(packed.data)
    except Exception:  # whatever the library, numpy or Python raise on hostile bytes; their words may quote them
        raise WireError("the arrays cannot be decoded", remedy=SAME) from None
    if len(arrays) > MAX_ARRAYS:
        raise WireError(f"{len(arrays)} arrays, at most {MAX_ARRAYS}", remedy="use a smaller adapter")
    return {name: arrays[name].copy() for name in sorted(arrays)}  # a copy: the library's are read-only
