"""A stream of JSON lines: a file, one that grows, or standard input.

| line | result |
|---|---|
| an object with the columns that are asked for, as texts | an entry |
| anything else, or longer than ``MOST_CHARS`` | None: counted, and never quoted |
| the last one of a file that grows, without its end | waited for |
| a file that was replaced or cut | read anew from its beginning |
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from llmchain_fl.core.errors import DataError
from llmchain_fl.monitor.settings import STDIN

MOST_CHARS = 2**20
LOOK_S = 0.2


@dataclass(frozen=True)
class Entry:
    """One text of the stream; what was not asked for is empty."""

    text: str
    label: str
    topic: str
    source: str


def entry_of(line: str, columns: Mapping[str, str], required: str) -> Entry | None:
    """An entry; None where the line is none.

    Args:
        columns: text, label, topic, source -> the stream's names, where they are others.
        required: the column that there must be.
    """
    if len(line) > MOST_CHARS:
        return None
    try:
        cells = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(cells, dict):
        return None
    values = {name: cells.get(columns.get(name, name), "") for name in ("text", "label", "topic", "source")}
    if not all(isinstance(value, str) for value in values.values()) or not values[required]:
        return None
    return Entry(**values)


def lines(stream: str, follow: bool, stop: threading.Event) -> Iterator[str]:
    """Each line; an empty one where there is none at the moment, so that whoever waits can do something else.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    if stream == STDIN:
        yield from _until(sys.stdin, stop)
        return
    try:
        yield from _of_file(Path(stream), follow, stop)
    except OSError as error:
        reason = error.strerror or "it is damaged"
        raise DataError(f"cannot be read: {reason}", where=stream, remedy="name a file of JSON lines") from None


def _until(file: IO[str], stop: threading.Event) -> Iterator[str]:
    while not stop.is_set() and (line := file.readline(MOST_CHARS + 2)):
        yield line


def _of_file(
    path: Path, follow: bool, stop: threading.Event, sleep: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    file, part = path.open(encoding="utf-8", errors="replace"), ""
    try:
        while not stop.is_set():
            piece = file.readline(MOST_CHARS + 2)
            part += piece if len(part) <= MOST_CHARS else ""
            if piece.endswith("\n") or (part and not follow and not piece):
                yield part
                part = ""
            elif not piece and not follow:
                return
            elif not piece:
                yield ""
                sleep(LOOK_S)
                if _replaced(path, file):
                    file.close()
                    file, part = path.open(encoding="utf-8", errors="replace"), ""
    finally:
        file.close()


def _replaced(path: Path, file: IO[str]) -> bool:
    """Whether another file stands there now, or this one is shorter than what was read of it."""
    try:
        there = path.stat()
    except OSError:
        return False
    here = os.fstat(file.fileno())
    return (there.st_ino, there.st_dev) != (here.st_ino, here.st_dev) or there.st_size < file.tell()
