"""A path -> records. One reader per format, in one table by suffix; directories: ``llmchain_fl/data/directories.py``.

=========================  =====================================  ==================================
suffix                     a record is                            ``line.number`` counts
=========================  =====================================  ==================================
.jsonl .ndjson             one JSON object on one line            lines of the file, from 1
.json                      the same, or one object of an array    lines; objects of the array, from 1
.csv                       one row under a header (RFC 4180)      the line where the record starts
.tsv                       one row under a header, no quoting     lines of the file, from 1
.parquet                   one row                                rows, from 1
.xlsx                      one row of the first sheet             rows of the sheet, from 1
.txt                       a line that is not blank: text = it    lines, from 1
=========================  =====================================  ==================================

Text files may be packed (``.csv.gz``). Formats that need a library are read by ``llmchain_fl/data``, imported when such
a file is named; others by plug-ins (``llmchain_fl.readers``, named by the suffix), at a site only by those it allows.

Every fault is a ``DataError`` that names file and line and never repeats what stands there. A reader raises what is
wrong with the whole file (``Found``) and hands on what is wrong with one record (``Misfit``).
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, cast

from llmchain_fl.core import plugins
from llmchain_fl.core.data.rows import Found
from llmchain_fl.core.errors import DataError
from llmchain_fl.core.regular_file import kind_of

GZIP = ".gz"


class Dialect(NamedTuple):
    """How a text file is written, as its owner says; an empty field: see ``tables.py``."""

    encoding: str = ""
    delimiter: str = ""


Reader = Callable[[Path, Dialect], Found]
Allowed = Collection[str] | None
READERS: Mapping[str, str] = MappingProxyType(
    {
        "jsonl": "llmchain_fl.core.data.text_files:read_jsonl",
        "ndjson": "llmchain_fl.core.data.text_files:read_jsonl",
        "json": "llmchain_fl.data.json_file:read_json",
        "csv": "llmchain_fl.core.data.tables:read_csv",
        "tsv": "llmchain_fl.core.data.tables:read_tsv",
        "parquet": "llmchain_fl.data.columnar:read_parquet",
        "xlsx": "llmchain_fl.data.excel:read_excel",
        "txt": "llmchain_fl.core.data.text_files:read_lines",
    }
)
DIRECTORY = "llmchain_fl.data.directories:found_in"


def found_in(
    path: Path, *, split: str = "train", dialect: Callable[[Path], Dialect], allowed: Allowed = None
) -> Iterator[Found]:
    """A file, all of it whatever ``split``; or the files of one split of a directory, one after the other.

    ``dialect``: how a text file is written. ``allowed``: plug-ins that may be used; None: all.

    Raises:
        DataError: nothing there, an unknown suffix, no such split, a file that is no such file at all.
    """
    if kind_of(path) != "folder":
        yield read_file(path, dialect, allowed)
        return
    within = cast(Callable[[Path, str], "list[Path] | Found"], plugins.named(DIRECTORY))(path, split)
    if isinstance(within, Found):
        yield within
        return
    for file in within:
        yield read_file(file, dialect, allowed)


def format_of(path: Path) -> str:
    """The suffix by which a file is read, without its dot."""
    return Path(path.name.lower().removesuffix(GZIP)).suffix.removeprefix(".")


def read_file(path: Path, dialect: Callable[[Path], Dialect], allowed: Allowed) -> Found:
    """One file by its suffix."""
    if kind_of(path) != "file":
        raise missing_file(path)
    if format_of(path) not in READERS and format_of(path) not in plugins.installed("readers"):
        raise DataError(f"cannot be read: its suffix is '{path.suffix}'", where=str(path), remedy=formats())
    return cast(Reader, plugins.load("readers", format_of(path), READERS, allowed))(path, dialect(path))


def formats() -> str:
    """What can be read, as a remedy."""
    return f"use {', '.join(f'.{name}' for name in plugins.names_of('readers', READERS))}"


def missing_file(path: Path) -> DataError:
    """The error for a path that is no readable file; its remedy names the nearest file that is there."""
    folder = path.parent
    if kind_of(folder) != "folder":
        there = next((parent for parent in folder.parents if kind_of(parent) == "folder"), None)
        whole: Path | None = None
        with contextlib.suppress(OSError):  # the working directory may be gone
            whole = None if there is None else there.absolute()
        remedy = f"the path exists up to {whole}, and no further" if whole else "check the path"
        return DataError("no such file", where=str(path), remedy=remedy)
    names = names_in(folder)
    if path.name in names:
        remedy = "check what it is, whether it is whole, and who may read it"
        return DataError("cannot be read as a file", where=str(path), remedy=remedy)
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
