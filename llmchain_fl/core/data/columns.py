"""File columns -> the project's columns; and the label checks (``labels.py``), which work on the result.

No message here holds a cell of a record. Names of columns come from a file too: under a missing header line the first
record stands in their place, in JSON a key may be anything. They are shown for public sources only, and only where all
of them look like names.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from llmchain_fl.core.data.labels import check_labels
from llmchain_fl.core.data.rows import HALF_PAIR, Line, Located, Misfit, Rows, how_many
from llmchain_fl.core.errors import DataError

__all__ = [
    "Line",
    "Located",
    "Rows",
    "asked_columns",
    "cell_text",
    "check_columns",
    "check_labels",
    "label_from_number",
    "map_columns",
    "map_record",
]

_MOST_BITS = 4096  # of a whole number: some 1,200 digits; Python writes out at most 4,300


def asked_columns(mapping: Mapping[str, str], required: Sequence[str]) -> dict[str, str]:
    """Project column -> file column, for every column that a record must have."""
    return {column: mapping.get(column, column) for column in [*required, *mapping]}


def map_columns(
    records: Sequence[Located],
    mapping: Mapping[str, str],
    required: Sequence[str],
    where: str,
    *,
    label_names: Sequence[str] | None = None,
    private: bool = True,
) -> list[dict[str, str]]:
    """Rows as the file gave them -> rows under the project's names, all of them.

    Args:
        records: from a reader.
        mapping: project column -> file column; a project column that is not given has its own name in the file.
        required: project columns that every record must have.
        where: the source, for messages about all of it.
        label_names: the label names of 0, 1, 2, ...; see ``label_from_number``.
        private: whether the records are somebody's; then no name from the file is shown.

    Returns:
        One dict per record, in order; see ``map_record``.

    Raises:
        DataError: a column that no record has, or a cell that is empty or no text (the first lines are named).
    """
    asked = asked_columns(mapping, required)
    check_columns(asked, dict.fromkeys(name for record in records for name in record.row), where, private=private)
    mapped = [map_record(record, asked, label_names) for record in records]
    misfits = [item for item in mapped if isinstance(item, Misfit)]
    for column in asked:
        for reason, remedy in _faults(column):
            lines = [misfit.line for misfit in misfits if misfit.reason == reason]
            if lines:
                raise DataError(f"{how_many(lines)} {reason}", where=str(lines[0]), remedy=remedy)
    return [item for item in mapped if not isinstance(item, Misfit)]


def map_record(
    record: Located, asked: Mapping[str, str], label_names: Sequence[str] | None = None
) -> dict[str, str] | Misfit:
    """One row under the project's names, or why it does not fit. Depends on nothing but this row.

    Every other column of the file stays under its own name (person, hospital, ...), unless it is the file's side of a
    mapping or an asked column has that name.

    ==================================  =================  ==============================
    a cell                              asked for          any other column
    ==================================  =================  ==============================
    text                                itself, unchanged  itself
    whole number, also as 3.0           its digits         its digits
    ... of more than 4,096 bits         a fault            left out of that record
    other number                        shortest spelling  shortest spelling
    true / false                        "true" / "false"   "true" / "false"
    null, NaN, blank text, no cell      a fault            left out of that record
    list, object, date, lone surrogate  a fault            left out of that record
    ==================================  =================  ==============================
    """
    found: dict[str, str] = {}
    for column, name in asked.items():
        cell = cell_text(record.row.get(name))
        if column == "label" and label_names is not None:
            cell = label_from_number(cell, label_names)
        if not cell:
            no_text, empty = _faults(column)
            return Misfit(record.line, *(no_text if cell is None else empty))
        found[column] = cell
    taken = set(asked.values())
    for name, value in record.row.items():
        if name not in found and name not in taken and cell_text(name) and (cell := cell_text(value)):
            found[name] = cell
    return found


def check_columns(asked: Mapping[str, str], present: Iterable[str], where: str, *, private: bool) -> None:
    """Every column that is asked for must be among those of the file.

    Raises:
        DataError: naming what was asked for; the names that are there only if they are public.
    """
    names = sorted(set(present))
    for column, wanted in asked.items():
        if wanted not in names:
            raise _missing_column(column, wanted, names, where, private=private)


def cell_text(cell: object) -> str | None:
    """A cell as text by the table of ``map_record``: "" where it is empty, None where it is no text."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return "" if math.isnan(cell) else str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, int):
        return str(cell) if cell.bit_length() <= _MOST_BITS else None
    if cell is None:
        return ""
    if not isinstance(cell, str) or HALF_PAIR.search(cell):
        return None
    return cell if cell.strip() else ""


def label_from_number(label: str | None, names: Sequence[str]) -> str | None:
    """A label that is a number counting from 0 -> its name.

    ======================================  ==================
    label, names                            becomes
    ======================================  ==================
    "1", ["no", "yes"]                      "yes"
    "yes", ["no", "yes"]                    "yes"
    "1", ["1", "2", "3"]                    "1" (a name first)
    "0", ["1", "2", "3"]                    "0" (where names are numbers, numbers are names)
    "7", ["no", "yes"] and other texts      unchanged; ``check_labels`` refuses it
    ======================================  ==================
    """
    if label is None or not re.fullmatch(r"[0-9]{1,9}", label) or any(name.isdecimal() for name in names):
        return label
    return names[int(label)] if int(label) < len(names) else label


def _faults(column: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """(reason, remedy) of a cell that is no text, and of one that is empty."""
    return (
        (f"a column '{column}' that is no text", "write a text or a number there (not a list, an object, a date)"),
        (f"a column '{column}' that is empty or missing", "fill it in, or leave the record out"),
    )


def _missing_column(column: str, wanted: str, names: Sequence[str], where: str, *, private: bool) -> DataError:
    asked = f"no column '{wanted}'" + (f" (for '{column}')" if wanted != column else "")
    if not private and all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}", name) for name in names):
        asked += f"; the columns are {', '.join(names[:20])}" + (", ..." if len(names) > 20 else "")
        near = difflib.get_close_matches(wanted, names, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        return DataError(asked, where=where, remedy=f"{hint}map it: {column} = the file's column")
    count = (
        "the 1 name that is there is not shown"
        if len(names) == 1
        else (f"the {len(names)} names that are there are not shown")
    )
    return DataError(
        f"{asked}; {count}: is the header line missing?",
        where=where,
        remedy=f"look at the file's first line, and map the column: {column} = the file's column",
    )
