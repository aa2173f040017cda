"""What names the values of an adapter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt


def digest(arrays: Mapping[str, npt.NDArray[np.generic]]) -> str:
    """SHA-256 over names, shapes and little-endian values, independent of order."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name], dtype="<f4")
        total.update(json.dumps([name, list(value.shape)]).encode())
        total.update(value.tobytes())
    return total.hexdigest()
