"""File columns -> the project's columns, record by record.

No message here holds a cell of a record. Names of columns come from a file too: under a missing header line the first
record stands in their place, in JSON a key may be anything. They are shown for public sources only, and only where all
of them look like names.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal

from llmchain_fl.core.data.lists import Listed
from llmchain_fl.core.data.rows import HALF_PAIR, LeftOut, Located, Misfit, Rows, sort_out
from llmchain_fl.core.errors import DataError

_MOST_BITS = 4096  # of a whole number: some 1,200 digits; Python writes out at most 4,300
_SHOWN = 20


def asked_columns(mapping: Mapping[str, str], required: Sequence[str]) -> dict[str, str]:
    """Project column -> file column, for every column that a record must have."""
    return {column: mapping.get(column, column) for column in [*required, *mapping]}


def map_record(record: Located, columns: Mapping[str, str]) -> dict[str, str] | Misfit:
    """One row under the project's names, or why it does not fit. Depends on nothing but this row.

    Every other column of the file stays under its own name (person, hospital, ...), unless it is the file's side of a
    mapping or an asked column has that name. ``note.body`` names the part ``body`` of the column ``note``, unless the
    row has a column of just that name.

    ==================================  =================  ==============================
    a cell                              asked for          any other column
    ==================================  =================  ==============================
    text                                itself, unchanged  itself
    whole number, also as 3.0           its digits         its digits
    ... of more than 4,096 bits         a fault            left out of that record
    other number, also a decimal        shortest spelling  shortest spelling
    true / false                        "true" / "false"   "true" / "false"
    null, NaN, blank text, no cell      a fault            left out of that record
    list, object, date, lone surrogate  a fault            left out of that record
    list, in a column ``Listed``        ``data/lists.py``  -
    ==================================  =================  ==============================
    """
    cells: dict[str, str] = {}
    for column, name in columns.items():
        value = _cell(record.row, name)
        cell = cell_text(value) if not isinstance(column, Listed) or value in (None, "") else column.text(value)
        if not cell:
            no_text, empty = cell_faults(column)
            return Misfit(record.line, *(no_text if cell is None else empty))
        cells[column] = cell
    taken = set(columns.values())
    for name, value in record.row.items():
        if name not in cells and name not in taken and cell_text(name) and (cell := cell_text(value)):
            cells[name] = cell
    return cells


def _cell(row: Mapping[str, object], name: str) -> object:
    if name in row or "." not in name:
        return row.get(name)
    value: object = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def check_columns(
    columns: Mapping[str, str], present: Iterable[str], where: str, *, private: bool, damaged: Collection[str] = ()
) -> None:
    """Every column that is asked for must be among those of the file, and readable.

    Raises:
        DataError: naming what was asked for; the names that are there only if they are public.
    """
    names = sorted(set(present))
    for column, wanted in columns.items():
        whole = wanted if wanted in names or wanted in damaged else wanted.partition(".")[0]
        if whole in damaged:
            raise DataError(
                f"the column for '{column}' is damaged", where=where, remedy="write it, or copy it here, again"
            )
        if whole not in names:
            raise _missing_column(column, wanted, names, where, private=private)


def cell_text(cell: object) -> str | None:
    """A cell as text by the table of ``map_record``: "" where it is empty, None where it is no text."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return "" if math.isnan(cell) else str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, Decimal):
        return f"{cell:f}".rstrip("0").rstrip(".") if cell % 1 else str(int(cell))
    if isinstance(cell, int):
        return str(cell) if cell.bit_length() <= _MOST_BITS else None
    if cell is None:
        return ""
    if not isinstance(cell, str) or HALF_PAIR.search(cell):
        return None
    return cell if cell.strip() else ""


def only_labels(rows: Rows, labels: Collection[str]) -> tuple[Rows, LeftOut]:
    """The records whose label stands in the public label list, and how many have another one (which is not quoted).

    What a record's own label is decides about this record and no other; one without a label is left out.
    """
    known = frozenset(labels)
    reason = f"a label that is not in the public label list of {len(known)} labels"
    return only_sound(rows, lambda record: "" if record.get("label") in known else reason)


def only_sound(rows: Rows, fault: Callable[[Mapping[str, str]], str]) -> tuple[Rows, LeftOut]:
    """The records in which ``fault`` finds nothing, and how many are none of the task's, by reason.

    ``fault``: why a record is none; "": it is one. Of this record alone, and not a word of it.
    """
    judged = [fault(record) for record in rows.records]
    sound, left = sort_out(
        Misfit(line, reason, "") if reason else place
        for place, (reason, line) in enumerate(zip(judged, rows.lines, strict=True))
    )
    return rows.select(sound), left


def cell_faults(column: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """(reason, remedy) of a cell that is no text, and of one that is empty."""
    if isinstance(column, Listed):
        bad = (f"a column '{column}' that is no list", f"write {column.holds} there")
    else:
        bad = f"a column '{column}' that is no text", "write a text or a number there (not a list, an object, a date)"
    return (
        bad,
        (f"a column '{column}' that is empty or missing", "fill it in, or leave the record out"),
    )


def _missing_column(column: str, wanted: str, names: Sequence[str], where: str, *, private: bool) -> DataError:
    fault = f"no column '{wanted}'" + (f" (for '{column}')" if wanted != column else "")
    map_it = f"map it: {column} = the file's column"
    if not private and all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}", name) for name in names):
        fault += f"; the columns are {', '.join(names[:_SHOWN])}" + (", ..." if len(names) > _SHOWN else "")
        near = difflib.get_close_matches(wanted, names, n=1)
        return DataError(fault, where=where, remedy=(f"did you mean '{near[0]}'? " if near else "") + map_it)
    count = "the 1 name that is there is" if len(names) == 1 else f"the {len(names)} names that are there are"
    return DataError(
        f"{fault}; {count} not shown: is the header line missing?",
        where=where,
        remedy=f"look at the file's first line, and {map_it}",
    )
