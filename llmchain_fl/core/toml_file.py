"""TOML that somebody wrote -> a mapping, or one ``ConfigError``. The one place that parses it.

``tomllib`` alone lets other exceptions out: a ``RecursionError`` for 3,000 brackets, a bare ``ValueError`` for a number
of 5,000 digits. And it takes whole numbers of any size, which TOML itself keeps to 64 bits.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.regular_file import kind_of, read_regular

MOST_BYTES = 4 * 2**20
"""Of one file: some thousand times a long configuration. The parser's time and memory grow with it."""

MOST_DEPTH = 32
"""Tables and lists in each other; a configuration has six."""


_MOST_PARTS = 100
_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_LONG_KEY = re.compile(rf"(?:^[ \t]*\[{{0,2}}|[{{,])[ \t]*(?:{_PART}){{{_MOST_PARTS}}}", re.MULTILINE)
"""A dotted key of more parts, where keys can stand (or a text, behind a comma): the parser's time grows with the square
of their number."""


def read_toml(path: Path, kind: str = "configuration file", *, remedy: str = "check the path") -> dict[str, Any]:
    r"""Read one TOML file; a byte order mark in front of it is skipped.

    ===========================================  ==========================================
    the file                                     result
    ===========================================  ==========================================
    TOML in UTF-8, with or without the mark      its tables
    empty                                        {}
    not there                                    ConfigError "there is no KIND PATH"
    a folder, pipe, device; not to be opened     ConfigError "PATH cannot be read: why"
    more than ``MOST_BYTES``                     ConfigError "... more than 4,194,304 bytes"
    UTF-16 (Windows' "Unicode"), other bytes     ConfigError that names encoding and line
    no TOML                                      ConfigError with the parser's line and column
    deeper than ``MOST_DEPTH``, a whole number   ConfigError
    over 64 bits or of thousands of digits
    ===========================================  ==========================================

    ``kind``: what it is called in messages. ``remedy``: what to do where it is missing.

    Raises:
        ConfigError: see above; no other exception.
    """
    if not kind_of(path) and not _is_there(path):
        raise ConfigError([f"there is no {kind} {path}"], remedy=remedy)
    tables: dict[str, Any] = {}
    fault = ""
    try:
        tables, fault = parse_toml(_decoded(read_regular(path, MOST_BYTES)))
    except OSError as error:
        raise ConfigError(
            [f"{path} cannot be read: {error.strerror or 'it is damaged'}"], remedy=f"give a readable {kind} (.toml)"
        ) from None
    except UnicodeError as error:
        fault = str(error)
    if fault:
        raise ConfigError([f"{path} is not valid TOML: {fault}"])
    return tables


def parse_toml(text: str) -> tuple[dict[str, Any], str]:
    """The tables of ``text`` and "", or no table and what is wrong with it. Never raises."""
    if _LONG_KEY.search(text):
        return {}, f"a key has more than {_MOST_PARTS} parts"
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return {}, str(error)[:300]
    except (RecursionError, MemoryError):
        return {}, "brackets or tables are nested too deeply"
    except (ValueError, OverflowError):
        return {}, "a number is too long"
    fault = tree_fault(tables)
    return ({}, fault) if fault else (tables, "")


def tree_fault(tree: object) -> str:
    """Why ``tree`` is nothing that a TOML file may hold; "" where nothing is wrong.

    =============================================  ================================================
    in ``tree``                                    fault
    =============================================  ================================================
    a whole number from -2^63 to 2^63 - 1          none
    any other whole number                         "a whole number does not fit into 64 bits"
    tables and lists ``MOST_DEPTH`` deep           none
    deeper                                         "tables or lists are nested more than 32 deep"
    =============================================  ================================================
    """
    level = [tree]
    for _ in range(MOST_DEPTH + 1):
        if any(type(value) is int and not -(2**63) <= value < 2**63 for value in level):
            return "a whole number does not fit into 64 bits"
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        if not inner:
            return ""
        level = inner
    return f"tables or lists are nested more than {MOST_DEPTH} deep"


def _decoded(data: bytes) -> str:
    """The text of a file, or a UnicodeError that says in words what is wrong."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnicodeError("it begins with a UTF-16 byte order mark; save it as UTF-8")
    line = 0
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    raise UnicodeError(f"line {line} is not UTF-8")


def _is_there(path: Path) -> bool:
    """Whether a directory entry of this name exists, or cannot be looked for: then opening it says why."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    return True
