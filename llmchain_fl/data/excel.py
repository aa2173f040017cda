"""Excel workbooks (``.xlsx``): the first sheet, its columns named in its first row; through openpyxl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmchain_fl.core.data.readers import Dialect, missing_file
from llmchain_fl.core.data.rows import Found, Line, Located
from llmchain_fl.core.data.tables import check_header
from llmchain_fl.core.errors import DataError
from llmchain_fl.core.foreign import attempt
from llmchain_fl.core.regular_file import kind_of
from llmchain_fl.extras import need


def read_excel(path: Path, dialect: Dialect) -> Found:
    """The first sheet of a workbook; ``line`` is the row of the sheet. Formulas count as the value last computed.

    =========================  ==================================================
    a cell                     becomes
    =========================  ==================================================
    text, number, true/false   itself
    empty                      None
    a date, a time, an error   itself, which ``map_record`` takes for no text
    =========================  ==================================================

    Empty rows, and columns without a name, are left out.

    Raises:
        ConfigError: openpyxl is not installed.
        DataError: no workbook, two columns of one name.
    """
    if kind_of(path) != "file":
        raise missing_file(path)
    need("files", f"{path}: an Excel file")
    rows = attempt(lambda: _rows(path))
    if rows is None:
        raise DataError("is not a readable Excel workbook", where=str(path), remedy="save it again as .xlsx, or as CSV")
    if not rows:
        return Found(str(path), None, ())
    (first, head), *rest = rows
    names = [("" if cell is None else str(cell)).strip() for cell in head]
    header = check_header([name for name in names if name], f"{path}:{first}")
    located = [
        Located({name: cell for name, cell in zip(names, cells, strict=False) if name}, Line(str(path), number))
        for number, cells in rest
    ]
    return Found(str(path), header, located)


def _rows(path: Path) -> list[tuple[int, tuple[Any, ...]]]:
    """(number, cells) of every row that is not empty."""
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        rows = enumerate(book.worksheets[0].iter_rows(values_only=True), start=1)
        return [(number, tuple(cells)) for number, cells in rows if any(cell is not None for cell in cells)]
    finally:
        book.close()
