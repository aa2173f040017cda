"""JSON lines and plain text -> rows that know their line. A line is a record; blank lines are skipped.

Faults are raised outside ``except`` blocks: a chained ``JSONDecodeError.doc`` would carry the file's text along.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from llmchain_fl.core.data.lines import LONGEST_LINE, NOT_TEXT, has_bad_bytes, pieces
from llmchain_fl.core.data.readers import Dialect
from llmchain_fl.core.data.rows import Found, Line, Located, Misfit


def read_jsonl(path: Path, dialect: Dialect) -> Found:
    r"""One JSON object per line. Only ``\n`` ends a line (a raw U+2028 inside a string is legal JSON).

    Raises:
        DataError: missing file.
    """
    return Found(str(path), None, _json_records(path, dialect))


def read_lines(path: Path, dialect: Dialect) -> Found:
    r"""Plain text, one document a line: a record with the one column ``text``. Only ``\n`` (and ``\r\n``) ends a line.

    Raises:
        DataError: missing file.
    """
    return Found(str(path), ("text",), _text_records(path, dialect))


def json_object(text: str) -> dict[str, object] | None:
    """The JSON object that ``text`` is, or None where it is none (or nested too deeply, or a number is too long)."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, dict) else None


def _json_records(path: Path, dialect: Dialect) -> Iterator[Located | Misfit]:
    for item in _lines(path, dialect):
        yield item if isinstance(item, Misfit) else _json_record(*item)


def _json_record(line: Line, text: str) -> Located | Misfit:
    row = json_object(text)
    if row is None:
        remedy = 'write one object per line, for instance {"text": "...", "label": "..."}'
        return Misfit(line, "line is not a JSON object", remedy)
    return Located(row, line)


def _text_records(path: Path, dialect: Dialect) -> Iterator[Located | Misfit]:
    for item in _lines(path, dialect):
        yield item if isinstance(item, Misfit) else Located({"text": item[1].strip()}, item[0])


def _lines(path: Path, dialect: Dialect) -> Iterator[tuple[Line, str] | Misfit]:
    """Every line that is not blank, or why it cannot be used."""
    skipped = 0
    for number, text in pieces(path, ends="\n", encoding=dialect.encoding):
        line = Line(str(path), number)
        if number == skipped:
            continue
        if len(text) == LONGEST_LINE and not text.endswith("\n"):
            skipped = number
            yield Misfit(line, f"line is over {LONGEST_LINE:,} characters", "make several records of it")
        elif has_bad_bytes(text):
            yield Misfit(line, f"line {NOT_TEXT}", "save the file as UTF-8")
        elif text.strip():
            yield line, text
