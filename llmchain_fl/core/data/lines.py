"""The lines of a text file, one at a time, with a bound on what is held of any of them; ``.gz`` is unpacked on the way.

Bytes that are no text in the file's encoding come out as lone surrogates, which no UTF-8 holds: ``has_bad_bytes`` finds
them, so that a fault stays with the record it stands in.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, cast

from llmchain_fl.core.data.readers import GZIP, missing_file
from llmchain_fl.core.regular_file import open_regular

LONGEST_LINE = 16 * 2**20
"""Characters of one line of JSON or text; parsed, it may take twenty times as much memory."""

UTF_8 = "utf-8"
NOT_TEXT = 'is not UTF-8 (if all of the file is Latin-1, say so: data.encoding = "windows-1252")'
_BAD_BYTE = re.compile("[\udc80-\udcff]")


class Piece(NamedTuple):
    """A line with its end, or a part of a line that is longer than the bound."""

    number: int
    text: str


def pieces(path: Path, *, ends: Literal["\n", "any"], most: int = LONGEST_LINE, encoding: str = "") -> Iterator[Piece]:
    r"""The lines of a file in pieces of at most ``most`` characters; all but a line's last piece are without an end.

    Args:
        path: a regular file; anything else is refused, without waiting for what it may send.
        ends: what ends a line: only ``\n`` (a raw U+2028 or a ``\r`` is then a character), or also ``\r\n`` and ``\r``.
        most: characters of a piece.
        encoding: empty: UTF-8; a byte order mark in front of UTF-8 is skipped.

    Raises:
        DataError: missing or unreadable, also in the middle.
    """
    codec = "utf-8-sig" if encoding in ("", UTF_8) else encoding
    newline = "\n" if ends == "\n" else ""
    with contextlib.ExitStack() as stack:
        raw = open_bytes(path, stack)
        file = io.TextIOWrapper(raw, encoding=codec, errors="surrogateescape", newline=newline)
        number, within = 0, False
        while text := _next(file, most, path):
            number += not within
            within = len(text) == most and not text.endswith(("\n", "\r"))
            yield Piece(number, text)


def open_bytes(path: Path, stack: contextlib.ExitStack) -> BinaryIO:
    """The bytes of a regular file, unpacked where its name ends in ``.gz``; closed with ``stack``.

    Raises:
        DataError: missing, or not to be opened.
    """
    raw: BinaryIO | None = None
    with contextlib.suppress(OSError):
        raw = stack.enter_context(open_regular(path))
    if raw is None:
        raise missing_file(path)
    return cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if path.suffix.lower() == GZIP else raw


def _next(file: io.TextIOWrapper, most: int, path: Path) -> str:
    with contextlib.suppress(OSError, EOFError, zlib.error):
        return file.readline(most)
    raise missing_file(path)


def has_bad_bytes(text: str) -> bool:
    """Whether some bytes of ``text`` were no text."""
    return not text.isascii() and _BAD_BYTE.search(text) is not None
