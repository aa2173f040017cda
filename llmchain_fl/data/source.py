"""What a data setting names -> all of its public records, or an error. A site uses ``core/data/source.py``, which
leaves out what does not fit; what a setting may name stands there.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from llmchain_fl.core.data.columns import asked_columns, cell_faults, check_columns, map_record
from llmchain_fl.core.data.lines import UTF_8, open_bytes
from llmchain_fl.core.data.readers import Dialect
from llmchain_fl.core.data.rows import SHOWN, Found, Line, Located, Misfit, Rows
from llmchain_fl.core.data.source import found_at, path_of, without_rows
from llmchain_fl.core.data.tables import WINDOWS
from llmchain_fl.core.errors import ConfigError, DataError
from llmchain_fl.core.tasks.kind import TaskKind

__all__ = ["check_kind", "check_labels", "load_source", "map_columns", "path_of", "read_rows", "resolve_site"]

_BLOCK = 2**20


def read_rows(
    spec: str,
    *,
    mapping: Mapping[str, str],
    required: Sequence[str],
    split: str,
    seed: int,
    size: int | None = None,
    private: bool = True,
) -> Rows:
    """Load a source and map its columns: every record, or an error. A site uses ``read_fitting``.

    Args:
        spec: see ``core/data/source.py``, with ``{site}`` already resolved.
        mapping: project column -> file column.
        required: project columns every record must have, for instance ``("text", "label")``.
        split: "train", "validation", "test", ...
        seed: chooses the records where ``size`` is smaller than the source, and generated records.
        size: at most so many records; None for all.
        private: whether the records are somebody's; False lets an error list the columns of a public file.

    Raises:
        DataError: the source cannot be read, or a column or a cell is missing.
        ConfigError: a size under 1, or a placeholder left over.
    """
    located = load_source(spec, split=split, seed=seed, size=size, columns=asked_columns(mapping, required))
    return Rows(map_columns(located, mapping, required, spec, private=private), [item.line for item in located], spec)


def map_columns(
    records: Sequence[Located],
    mapping: Mapping[str, str],
    required: Sequence[str],
    where: str,
    *,
    private: bool = True,
) -> list[dict[str, str]]:
    """Rows as the file gave them -> rows under the project's names, all of them; see ``map_record``.

    Raises:
        DataError: a column that no record has, or a cell that is empty or no text (the first lines are named).
    """
    columns = asked_columns(mapping, required)
    check_columns(columns, dict.fromkeys(name for record in records for name in record.row), where, private=private)
    mapped = [map_record(record, columns) for record in records]
    misfits = [item for item in mapped if isinstance(item, Misfit)]
    for column in columns:
        for reason, remedy in cell_faults(column):
            lines = [misfit.line for misfit in misfits if misfit.reason == reason]
            if lines:
                raise DataError(f"{how_many(lines)} {reason}", where=str(lines[0]), remedy=remedy)
    return [item for item in mapped if not isinstance(item, Misfit)]


def load_source(
    spec: str, *, split: str, seed: int, size: int | None, columns: Mapping[str, str] | None = None
) -> list[Located]:
    """The records of a source as they are, in its order.

    ====================================  ==================================================================
    case                                  then
    ====================================  ==================================================================
    ``size`` under the number of records  a uniform draw without replacement by ``seed``, in source order
    ``size`` at or over it                all of them
    a file, one saved ``Dataset``         ``split`` changes nothing: the caller gives one path per split
    ``spec`` ends in ``[a:b]``            those rows first, as Python slices, then the draw
    ====================================  ==================================================================

    Args:
        columns: project column -> file column; a damaged column that is none of them does not matter.

    Raises:
        DataError: it cannot be had, a record that cannot be read, a damaged column, no row in ``[a:b]``.
        ConfigError: a size under 1, or ``{site}`` left over.
    """
    if size is not None and size < 1:
        raise ConfigError([f"size is {size}; it must be at least 1, or left out for all records of '{spec}'"])
    whole, rows = without_rows(spec)
    parts = found_at(whole, split, seed, None if rows else size, dialect_of, None)
    records = [record for part in parts for record in _records(part, columns or {})]
    if not records:
        raise DataError("holds no record", where=whole, remedy="give a source with at least one record")
    selected = records[rows] if rows else records
    if not selected:
        raise DataError(f"has {len(records)} records, none of them in these rows", where=spec, remedy="give other rows")
    if size is None or size >= len(selected):
        return selected
    chosen = np.random.default_rng(seed).choice(len(selected), size, replace=False)
    return [selected[index] for index in sorted(chosen)]


def _records(part: Found, columns: Mapping[str, str]) -> Iterator[Located]:
    if part.damaged:
        here = {ours: theirs for ours, theirs in columns.items() if theirs in part.damaged}
        check_columns(here, (), part.where, private=True, damaged=part.damaged)
    for item in part.items:
        if isinstance(item, Misfit):
            raise DataError(item.detail or item.reason, where=str(item.line), remedy=item.remedy)
        yield item


def dialect_of(path: Path) -> Dialect:
    """How a public text file is written: any of its bytes may decide, where a site looks at the header line alone."""
    decoder = codecs.getincrementaldecoder(UTF_8)()
    if not {".csv", ".tsv", ".txt"} & set(path.suffixes):  # JSON is UTF-8 by its definition
        return Dialect()
    with ExitStack() as stack, suppress(OSError, EOFError, zlib.error):
        file = open_bytes(path, stack)
        try:
            while block := file.read(_BLOCK):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            return (
                Dialect() if error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else Dialect(WINDOWS)
            )
    return Dialect()


def resolve_site(spec: str, site: str) -> str:
    """``spec`` with the site's name for ``{site}``.

    Raises:
        ConfigError: a site name with anything but letters, digits, ``_ - .`` (it might lead out of its folder).
    """
    if "{site}" in spec and (not re.fullmatch(r"[\w.-]+", site) or set(site) == {"."}):
        raise ConfigError([f"site name '{site}' cannot stand in a path; use letters, digits, '_', '-' and '.'"])
    return spec.replace("{site}", site)


def check_labels(rows: Rows, labels: Collection[str]) -> None:
    """Every label must stand in the public label list. A label that does not is private: it is not quoted.

    Raises:
        DataError: with the number of such records and the first five lines.
    """
    known = frozenset(labels)
    at = zip(rows.records, rows.lines, strict=True)
    unknown = [line for record, line in at if record.get("label") not in known]
    if unknown:
        raise DataError(
            f"{how_many(unknown)} a label that is not in the public label list of {len(known)} labels",
            where=str(unknown[0]),
            remedy="spell the label as in the list (case and spaces count), add it to the list, or map other names",
        )


def check_kind(rows: Rows, kind: TaskKind, names: Collection[str]) -> None:
    """Every record must be one of this kind of task, by its public list of ``names``. No record is quoted.

    Raises:
        DataError: with the number of records that have the first fault, and the first five lines.
    """
    if kind.labelled and names:
        check_labels(rows, names)
    known = frozenset(names)
    reasons = [kind.fault_of(record, known) for record in rows.records]
    first = next((reason for reason in reasons if reason), "")
    if first:
        lines = [line for line, reason in zip(rows.lines, reasons, strict=True) if reason == first]
        raise DataError(f"{how_many(lines)} {first}", where=str(lines[0]), remedy="correct it, or leave the record out")


def how_many(lines: Sequence[Line]) -> str:
    """The subject of a fault, as in "3 records (lines 2, 5, 9) have": at most five lines, all of the first's file."""
    here = [str(line.number) for line in lines if line.file == lines[0].file][:SHOWN]
    shown = ", ".join(here) + (", ..." if len(here) < len(lines) else "")
    return f"1 record (line {shown}) has" if len(lines) == 1 else f"{len(lines)} records (lines {shown}) have"
