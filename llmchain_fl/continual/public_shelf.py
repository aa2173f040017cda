"""Public records as a guard hands them to the sites: packed once a stage, with the key of each round's draws."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import DataError
from llmchain_fl.core.guards.public_records import COLUMNS, MAX_BYTES, MAX_RECORDS, Row


def pack(rows: Sequence[Row]) -> NDArray[np.uint8]:
    """``rows`` as UTF-8 JSON lines, uint8 [bytes]; known columns only, always in the same order.

    Raises:
        DataError: too many records or bytes, or text that is not Unicode.
    """
    lines = [json.dumps({c: row[c] for c in COLUMNS if c in row}, ensure_ascii=False) for row in rows]
    try:
        data = "\n".join(lines).encode("utf-8")
    except UnicodeEncodeError:
        raise DataError("a public record holds half a surrogate pair", remedy="write the file as UTF-8") from None
    if len(lines) > MAX_RECORDS or len(data) > MAX_BYTES:
        message = f"{len(lines)} public records are {len(data)} bytes; at most {MAX_RECORDS} and {MAX_BYTES} travel"
        raise DataError(message, remedy="lower continual.public_size")
    return np.frombuffer(data, dtype=np.uint8).copy()


def of_ended(rows: Sequence[Row], stages: Sequence[str], stage: int) -> tuple[Row, ...]:
    """Records of stages up to ``stage`` (0-based, the one that ends), and those that name no stage.

    A stage to come is left out: holding its texts at what an adapter says that never learnt them is not remembering.
    """
    ended = ("", *stages[: stage + 1])
    return tuple(row for row in rows if row.get("stage", "") in ended)


class PublicShelf:
    """The server's half: the records a guard hands to the sites, and the key of the next round's draws."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._arrays: dict[str, Any] = {}

    def put(self, rows: Sequence[Row]) -> None:
        """These records from now on."""
        self._arrays[f"{self._prefix}.rows"] = pack(rows)

    def turn(self, seed: int, number: int) -> None:
        """The next round is ``number``."""
        self._arrays[f"{self._prefix}.draw"] = np.array([seed, number], dtype=np.int64)

    def arrays(self) -> Arrays:
        """For the payload and for the state."""
        return dict(self._arrays)

    def load(self, state: Arrays) -> None:
        """Take up what :meth:`arrays` gave."""
        self._arrays = {name: value for name, value in state.items() if name.startswith(f"{self._prefix}.")}
