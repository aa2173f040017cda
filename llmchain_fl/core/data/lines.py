"""The lines of a text file, one at a time, with a bound on what is held of any of them.

Text is UTF-8, with or without a byte order mark. Bytes that are not come out as lone surrogates, which no UTF-8 holds:
``has_bad_bytes`` finds them, so that a fault stays with the record it stands in.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from llmchain_fl.core.errors import DataError
from llmchain_fl.core.foreign import attempt
from llmchain_fl.core.regular_file import kind_of, open_regular, read_regular

LONGEST_LINE = 16 * 2**20
"""Characters of one line of JSON or text; parsed, it may take twenty times as much memory."""

MOST_BYTES = 64 * 2**20
"""Of a file that is read as a whole: a label list, the description of a data set."""

_BAD_BYTE = re.compile("[\udc80-\udcff]")


class Piece(NamedTuple):
    """A line with its end, or a part of a line that is longer than the bound."""

    number: int
    text: str


def pieces(path: Path, *, ends: Literal["\n", "any"], most: int = LONGEST_LINE) -> Iterator[Piece]:
    r"""The lines of a file in pieces of at most ``most`` characters; all but a line's last piece are without an end.

    Args:
        path: a regular file; anything else is refused, without waiting for what it may send.
        ends: what ends a line: only ``\n`` (a raw U+2028 or a ``\r`` is then a character), or also ``\r\n`` and ``\r``.
        most: characters of a piece.

    Raises:
        DataError: missing or unreadable, also in the middle.
    """
    raw: BinaryIO | None = None
    with contextlib.suppress(OSError):
        raw = open_regular(path)
    if raw is None:
        raise missing_file(path)
    newline = "\n" if ends == "\n" else ""
    with io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline=newline) as file:
        number, within = 0, False
        while text := _next(file, most, path):
            number += not within
            within = len(text) == most and not text.endswith(("\n", "\r"))
            yield Piece(number, text)


def _next(file: io.TextIOWrapper, most: int, path: Path) -> str:
    with contextlib.suppress(OSError):
        return file.readline(most)
    raise missing_file(path)


def has_bad_bytes(text: str) -> bool:
    """Whether the bytes of ``text`` were not UTF-8."""
    return not text.isascii() and _BAD_BYTE.search(text) is not None


def read_text(path: Path) -> str:
    """The whole file as text, without a byte order mark, line ends as they are. For short files.

    Raises:
        DataError: missing, unreadable, over ``MOST_BYTES``, or not UTF-8 (naming the first line that is not).
    """
    data: bytes | None = None
    with contextlib.suppress(OSError):
        data = read_regular(path, MOST_BYTES)
    if data is None:
        raise missing_file(path)
    line = 0
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    raise DataError("line is not UTF-8", where=f"{path}:{line}", remedy="save the file as UTF-8")


def missing_file(path: Path) -> DataError:
    """The error for a path that is no readable file; its remedy names the nearest file that is there."""
    folder = path.parent
    if kind_of(folder) != "folder":
        there = next((parent for parent in folder.parents if kind_of(parent) == "folder"), None)
        whole = None if there is None else attempt(there.absolute)  # the working directory may be gone
        remedy = f"the path exists up to {whole}, and no further" if whole else "check the path"
        return DataError("no such file", where=str(path), remedy=remedy)
    names = names_in(folder)
    if path.name in names:
        return DataError(
            "cannot be read as a file",
            where=str(path),
            remedy="check what it is, how large, and who may read it",
        )
    near = difflib.get_close_matches(path.name, names, n=1)
    if near:
        return DataError("no such file", where=str(path), remedy=f"did you mean {folder / near[0]}?")
    held = f"holds {', '.join(names[:5])}" + (" ..." if len(names) > 5 else "") if names else "is empty"
    return DataError("no such file", where=str(path), remedy=f"{folder} {held}")


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted; none where it cannot be listed."""
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except (OSError, ValueError):
        return []
