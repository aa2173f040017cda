"""Files that are read as a whole: ``.json`` with an array of objects, a label list, the description of a data set."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from llmchain_fl.core.data.lines import open_bytes, pieces
from llmchain_fl.core.data.readers import GZIP, Dialect, missing_file
from llmchain_fl.core.data.rows import Found, Line, Located, Misfit
from llmchain_fl.core.data.text_files import read_jsonl
from llmchain_fl.core.errors import DataError

MOST_BYTES = 512 * 2**20
"""Of a file that is read as a whole; larger sets are JSON lines."""
_BLANK = " \t\r\n"


def read_json(path: Path, dialect: Dialect) -> Found:
    """JSON lines; or, where the file begins with a bracket, one array of objects, ``line`` their number from 1.

    The bracket is its writer's and of no record. An element that is no object is a fault of its record. A syntax fault
    is one of the whole file: nobody can tell where the next element begins.

    Raises:
        DataError: missing file; an array that is not well formed, or followed by something.
    """
    first = next((piece.text for piece in pieces(path, ends="\n", most=2**16) if piece.text.strip()), "")
    if not first.lstrip().startswith("["):
        return read_jsonl(path, dialect)
    return Found(str(path), None, _elements(path, read_text(path)))


def _elements(path: Path, text: str) -> Iterator[Located | Misfit]:
    decoder, at, number = json.JSONDecoder(), _skip(text, text.index("[") + 1), 0
    closed = text[at : at + 1] == "]"
    while not closed:
        number += 1
        value, end = _value(decoder, text, at)
        after = _skip(text, end)
        closed = text[after : after + 1] == "]"
        if end < 0 or not (closed or text[after : after + 1] == ","):
            raise DataError(
                f"is not a well-formed JSON array: element {number} cannot be read, or nothing follows it",
                where=str(path),
                remedy="write it again with a JSON library, or as JSON lines (.jsonl), where a fault stays in its line",
            )
        line = Line(str(path), number)
        remedy = 'write objects, for instance {"text": "...", "label": "..."}'
        yield Located(value, line) if isinstance(value, dict) else Misfit(line, "element is not a JSON object", remedy)
        at = _skip(text, after + 1)
    if text[_skip(text, at if number else at + 1) :]:
        raise DataError("has something behind its JSON array", where=str(path), remedy="keep one array in a file")


def _value(decoder: json.JSONDecoder, text: str, at: int) -> tuple[object, int]:
    with contextlib.suppress(ValueError, RecursionError, MemoryError):
        return decoder.raw_decode(text, at)
    return None, -1


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def read_text(path: Path) -> str:
    """The whole file as text, without a byte order mark, line ends as they are.

    Raises:
        DataError: missing, unreadable, over ``MOST_BYTES``, or not UTF-8 (naming the first line that is not).
    """
    data: bytes | None = None
    with contextlib.suppress(OSError, EOFError, zlib.error), contextlib.ExitStack() as stack:
        data = open_bytes(path, stack).read(MOST_BYTES + 1)
    if data is None:
        raise missing_file(path)
    if len(data) > MOST_BYTES:
        remedy = f"write JSON lines{f' ({GZIP} is fine)' if path.suffix == GZIP else ''}, which are read one by one"
        raise DataError(f"has more than {MOST_BYTES:,} bytes", where=str(path), remedy=remedy)
    line = 0
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    raise DataError("line is not UTF-8", where=f"{path}:{line}", remedy="save the file as UTF-8")
