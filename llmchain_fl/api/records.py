"""Records in memory -> JSON lines, one file a site: what every other part of the project reads.

====================================  =================================================================
given                                 read as
====================================  =================================================================
list (or iterable) of mappings        a record each
pandas ``DataFrame``                  a record a row; the index is left out
``datasets.Dataset``                  a record a row
mapping of stage -> one of these      the records of all stages, each with its stage in ``stage``
NaN, None                             null, an empty cell
numpy and pandas scalars, dates       the plain number; a text
====================================  =================================================================

No library is imported for this: what a value is shows in the methods that it has.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.core.errors import DataError

STAGE = "stage"
"""The column that says of which stage a record is, where they were given stage by stage."""


@runtime_checkable
class Frame(Protocol):
    """What a pandas ``DataFrame`` is to us."""

    columns: object

    def to_dict(self, orient: str) -> list[dict[str, object]]: ...


@runtime_checkable
class Scalar(Protocol):
    """What a numpy or pandas scalar is to us."""

    def item(self) -> object: ...


Records = Iterable[Mapping[str, object]] | Frame
Staged = Records | Mapping[str, Records]


def rows_of(given: Staged, where: str) -> list[dict[str, object]]:
    """Every record as a plain mapping.

    Args:
        given: see the table above.
        where: what to call it in errors.

    Raises:
        DataError: it holds no record, or something that is none.
    """
    rows = _rows(given, where)
    if not rows:
        raise DataError("holds no record", where=where, remedy="give it records, or leave it out")
    return rows


def is_staged(given: Staged) -> bool:
    """Whether records were given stage by stage."""
    return isinstance(given, Mapping)


def _rows(given: Staged, where: str) -> list[dict[str, object]]:
    if isinstance(given, Mapping):
        return [{STAGE: stage, **row} for stage, part in given.items() for row in rows_of(part, f"{where}[{stage!r}]")]
    if isinstance(given, Frame) and hasattr(given, "iloc"):
        return [dict(row) for row in given.to_dict(orient="records")]
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise DataError(f"a {type(given).__name__} is no data set", where=where, remedy=_REMEDY)
    rows = []
    for number, row in enumerate(cast("Iterable[object]", given), 1):
        if not isinstance(row, Mapping):
            raise DataError(f"record {number} is a {type(row).__name__}, not a mapping", where=where, remedy=_REMEDY)
        rows.append({str(name): value for name, value in row.items()})
    return rows


_REMEDY = "give a list of dicts, a pandas DataFrame or a datasets.Dataset"


def write_records(file: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write ``rows`` as JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({k: _plain(v) for k, v in row.items()}, ensure_ascii=False, default=str) for row in rows)
    atomic_write(file, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))


def _plain(value: object) -> object:
    """A value that JSON has."""
    if isinstance(value, Scalar) and not hasattr(value, "__len__"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return None if type(value).__name__ in ("NAType", "NaTType") else value
