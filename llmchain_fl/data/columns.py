"""File columns -> the project's columns; and the label checks (``labels.py``), which work on the result.

No message here holds a cell of a record. Column names are shown only where they all look like names: under a
missing header line the first record stands in their place.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from llmchain_fl.data.labels import check_labels, read_label_list
from llmchain_fl.data.rows import Line, Located, Rows, how_many
from llmchain_fl.errors import DataError

__all__ = [
    "Line",
    "Located",
    "Rows",
    "cell_text",
    "check_labels",
    "label_from_number",
    "map_columns",
    "read_label_list",
]

_HALF_PAIR = re.compile("[\ud800-\udfff]")  # a lone surrogate: no UTF-8 exists for it, so no tokenizer takes it


def map_columns(
    records: Sequence[Located],
    mapping: Mapping[str, str],
    required: Sequence[str],
    where: str,
    *,
    label_names: Sequence[str] | None = None,
) -> list[dict[str, str]]:
    """Rows as the file gave them -> rows under the project's names.

    Asked for are the required columns and the mapped ones. Every other column of the file stays under its own
    name (person, hospital, ...), unless it is the file's side of a mapping or an asked column has that name.

    ==================================  =================  ==============================
    a cell                              asked for          any other column
    ==================================  =================  ==============================
    text                                itself, unchanged  itself
    whole number, also as 3.0           its digits         its digits
    other number                        shortest spelling  shortest spelling
    true / false                        "true" / "false"   "true" / "false"
    null, NaN, blank text, no cell      a fault            left out of that record
    list, object, date, lone surrogate  a fault            left out of that record
    ==================================  =================  ==============================

    Args:
        records: from a reader.
        mapping: project column -> file column; a project column that is not given has its own name in the file.
        required: project columns that every record must have.
        where: the source, for messages about all of it.
        label_names: the label names of 0, 1, 2, ...; see ``label_from_number``.

    Returns:
        One dict per record, in order.

    Raises:
        DataError: a column that no record has, or a cell that is empty or no text (the first lines are named).
    """
    asked = {column: mapping.get(column, column) for column in [*required, *mapping]}
    present = dict.fromkeys(name for record in records for name in record.row)
    for column, wanted in asked.items():
        if wanted not in present:
            raise _missing_column(column, wanted, present, where)
    others = {name: name for name in present if name not in asked and name not in asked.values()}
    cells = {
        column: [cell_text(record.row.get(name)) for record in records] for column, name in {**asked, **others}.items()
    }
    if label_names is not None and "label" in cells:
        cells["label"] = [label_from_number(cell, label_names) for cell in cells["label"]]
    for column in asked:
        _refuse_bad_cells(column, cells[column], [record.line for record in records])
    return [{column: cell for column in cells if (cell := cells[column][i])} for i in range(len(records))]


def cell_text(cell: object) -> str | None:
    """A cell as text by the table of ``map_columns``: "" where it is empty, None where it is no text."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return "" if math.isnan(cell) else str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, int):
        return str(cell)
    if cell is None:
        return ""
    if not isinstance(cell, str) or _HALF_PAIR.search(cell):
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


def _refuse_bad_cells(column: str, cells: Sequence[str | None], lines: Sequence[Line]) -> None:
    no_text = [line for cell, line in zip(cells, lines, strict=True) if cell is None]
    empty = [line for cell, line in zip(cells, lines, strict=True) if cell == ""]
    for wrong, fault, remedy in (
        (no_text, "that is no text", "write a text or a number there (not a list, an object, a date)"),
        (empty, "that is empty or missing", "fill it in, or leave the record out"),
    ):
        if wrong:
            raise DataError(f"{how_many(wrong)} a column '{column}' {fault}", where=str(wrong[0]), remedy=remedy)


def _missing_column(column: str, wanted: str, present: Iterable[str], where: str) -> DataError:
    names = sorted(present)
    asked = f"no column '{wanted}'" + (f" (for '{column}')" if wanted != column else "")
    near = difflib.get_close_matches(wanted, names, n=1)
    if all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}", name) for name in names):
        asked += f"; the columns are {', '.join(names[:20])}" + (", ..." if len(names) > 20 else "")
    else:
        asked += f"; the {len(names)} names that are there are not shown: is the header line missing?"
    hint = f"did you mean '{near[0]}'? " if near else ""
    return DataError(asked, where=where, remedy=f"{hint}map it: {column} = the file's column")
