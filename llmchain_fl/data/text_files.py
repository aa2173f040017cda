"""JSON lines, CSV and TSV -> rows that know their line.

Text is UTF-8, with or without a byte order mark. Blank lines are skipped. Faults are raised outside ``except``
blocks: a chained ``JSONDecodeError.doc`` or ``UnicodeDecodeError.object`` would carry the file's text along.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from llmchain_fl.data.rows import Line, Located
from llmchain_fl.errors import DataError


def read_jsonl(path: Path) -> list[Located]:
    r"""One JSON object per line. Only ``\n`` ends a line (a raw U+2028 inside a string is legal JSON).

    Raises:
        DataError: missing file, not UTF-8, or a line that is not a JSON object.
    """
    records = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        row = json_object(line)
        if row is None:
            raise DataError(
                "line is not a JSON object",
                where=f"{path}:{number}",
                remedy='write one object per line, for instance {"text": "...", "label": "..."}',
            )
        records.append(Located(row, Line(str(path), number)))
    return records


def read_csv(path: Path) -> list[Located]:
    """Comma separated under a header row (RFC 4180): a field in double quotes may hold commas and line ends.

    Raises:
        DataError: missing file, not UTF-8, a wrong number of fields, a stray or unclosed quote, a bad header.
    """
    return _read_table(path, delimiter=",", quotes=True)


def read_tsv(path: Path) -> list[Located]:
    """Tab separated under a header row, as IANA text/tab-separated-values: a quote is a character like any other.

    Raises:
        DataError: missing file, not UTF-8, a wrong number of fields, a bad header.
    """
    return _read_table(path, delimiter="\t", quotes=False)


def read_lines(path: Path) -> list[Located]:
    r"""Plain text, one document a line: a record with the one column ``text``. Only ``\n`` (and ``\r\n``) ends a line.

    Raises:
        DataError: missing file, or not UTF-8.
    """
    lines = read_text(path).split("\n")
    return [
        Located({"text": line.strip()}, Line(str(path), number))
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def read_text(path: Path) -> str:
    """The whole file as text, without a byte order mark, line ends as they are.

    Raises:
        DataError: missing, unreadable, or not UTF-8 (naming the first line that is not).
    """
    data = _read_bytes(path)
    if data is None:
        raise missing_file(path)
    bad_line = 0
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad_line = data.count(b"\n", 0, error.start) + 1
    raise DataError("line is not UTF-8", where=f"{path}:{bad_line}", remedy="save the file as UTF-8")


def missing_file(path: Path) -> DataError:
    """The error for a path that is no readable file; its remedy names the nearest name that is there."""
    folder = path.parent
    if not folder.is_dir():
        there = next(parent for parent in folder.absolute().parents if parent.is_dir())
        return DataError("no such file", where=str(path), remedy=f"the path exists up to {there}, and no further")
    names = _names_in(folder)
    if path.name in names:
        return DataError("cannot be opened as a file", where=str(path), remedy="check what it is and who may read it")
    near = difflib.get_close_matches(path.name, names, n=1)
    if near:
        return DataError("no such file", where=str(path), remedy=f"did you mean {folder / near[0]}?")
    held = f"holds {', '.join(names[:5])}" + (" ..." if len(names) > 5 else "") if names else "is empty"
    return DataError("no such file", where=str(path), remedy=f"{folder} {held}")


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []


def json_object(text: str) -> dict[str, object] | None:
    """The JSON object that ``text`` is, or None where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _read_table(path: Path, *, delimiter: str, quotes: bool) -> list[Located]:
    header: list[str] = []
    records = []
    for line, row in _rows_with_lines(path, delimiter=delimiter, quotes=quotes):
        if not header:
            header = _header(row, f"{path}:{line}")
            continue
        if len(row) != len(header):
            raise DataError(
                f"line has {len(row)} fields, the header has {len(header)}",
                where=f"{path}:{line}",
                remedy="quote a CSV field that holds a comma; a TSV field may hold neither tab nor line end",
            )
        records.append(Located(dict(zip(header, row, strict=True)), Line(str(path), line)))
    return records


def _rows_with_lines(path: Path, *, delimiter: str, quotes: bool) -> Iterator[tuple[int, list[str]]]:
    """(line on which the row starts, row) for every row that is not blank; a bad quote is a fault, not a guess."""
    text = io.StringIO(read_text(path), newline="")
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    rows = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=quotes)
    start, fault = 1, False
    while True:
        row: list[str] | None = None
        try:
            row = next(rows, None)
        except csv.Error:
            fault = True
        if fault:
            raise DataError(
                "the record that starts here has a stray or unclosed quote, or a field over "
                f"{csv.field_size_limit():,} characters",
                where=f"{path}:{start}",
                remedy='inside a quoted field write a quote as "", or use JSON lines',
            )
        if row is None:
            return
        if row:
            yield start, row
        start = rows.line_num + 1


def _header(row: list[str], where: str) -> list[str]:
    names = [name.strip() for name in row]
    repeats = [number for number, name in enumerate(names, start=1) if name in names[: number - 1]]
    if repeats:
        raise DataError(
            f"column {repeats[0]} of {len(names)} has the name of an earlier column",
            where=where,
            remedy="give every column its own name; if the file has no header line, add one",
        )
    return names
