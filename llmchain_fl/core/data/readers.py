"""A path -> records. One reader per format, in one table by suffix; directories hold splits.

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

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import cast

from llmchain_fl.core import plugins
from llmchain_fl.core.data.lines import GZIP, Dialect, missing_file, names_in
from llmchain_fl.core.data.rows import Found
from llmchain_fl.core.errors import DataError
from llmchain_fl.core.regular_file import kind_of

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
SAVED = "llmchain_fl.data.columnar:read_saved_dataset"
PLAIN = "txt"
"""In a directory such files count only where there is no other format: they may be notes about the data."""

# The words by which a file name says its split (those of ``datasets``), between any of - _ . and digits.
SPLIT_WORDS: dict[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


def found_in(
    path: Path, *, split: str = "train", dialect: Callable[[Path], Dialect], allowed: Allowed = None
) -> Iterator[Found]:
    """A file, or the files of one split of a directory, one after the other.

    ===========================================  ========================================================
    ``path`` is                                  read is
    ===========================================  ========================================================
    a file                                       all of it, whatever ``split``
    a directory of ``DatasetDict.save_to_disk``  the split
    a directory of ``Dataset.save_to_disk``      all of it, whatever ``split``
    a directory of files (or its ``data/``)      the files whose names hold the split's word, sorted
    ... whose names hold no split's word         all of them for "train"; a fault for any other split
    a directory of directories train, test, ...  the files in the one of the split
    ===========================================  ========================================================

    Files in a directory are read by our own readers and not by ``datasets.load_dataset``: a fault can name its
    line, and no second copy of a site's records is left in a cache.

    Args:
        path: a file with a suffix in ``READERS``, or a directory.
        split: which split of a directory; "dev" and "validation" are the same in file names.
        dialect: how a text file is written.
        allowed: plug-ins that may be used; None: all.

    Raises:
        DataError: nothing there, an unknown suffix, no such split, a file that is no such file at all.
    """
    if kind_of(path) != "folder":
        yield _read_file(path, dialect, allowed)
    elif _is_saved(path):
        yield cast(Callable[[Path, str], Found], plugins.named(SAVED))(path, split)
    else:
        for file in _files_of_split(path, split):
            yield _read_file(file, dialect, allowed)


def _is_saved(path: Path) -> bool:
    """Whether ``datasets``' ``save_to_disk`` wrote this directory."""
    names = names_in(path)
    return "dataset_dict.json" in names or {"state.json", "dataset_info.json"} <= set(names)


def _format(path: Path) -> str:
    """The suffix by which a file is read, without its dot."""
    name = path.name.lower().removesuffix(GZIP)
    return Path(name).suffix.removeprefix(".")


def _read_file(path: Path, dialect: Callable[[Path], Dialect], allowed: Allowed) -> Found:
    if kind_of(path) != "file":
        raise missing_file(path)
    if _format(path) not in plugins.names_of("readers", READERS):
        raise DataError(f"cannot be read: its suffix is '{path.suffix}'", where=str(path), remedy=_use())
    return cast(Reader, plugins.load("readers", _format(path), READERS, allowed))(path, dialect(path))


def _use() -> str:
    return f"use {', '.join(f'.{name}' for name in plugins.names_of('readers', READERS))}"


def _files_of_split(folder: Path, split: str) -> list[Path]:
    wanted, known = SPLIT_WORDS.get(split, split), set(SPLIT_WORDS.values())
    words = {file: _words(file) for file in _readable(folder) or _readable(folder / "data")}
    if not known & set().union(*words.values()):
        inner = [folder / name for name in names_in(folder) if known & _words(folder / name)]
        words = {file: _words(one) for one in inner for file in _readable(one)} or words
    if not words:
        raise DataError("no file of records in this directory", where=str(folder), remedy=_use())
    there = sorted(known & set().union(*words.values())) or ["train"]
    chosen = [file for file in words if wanted in words[file]]
    if not chosen and wanted == "train" and there == ["train"]:
        chosen = list(words)
    if not chosen:
        raise no_split(split, there, str(folder))
    kinds = sorted({f".{_format(file)}" for file in chosen})
    if len(kinds) > 1:
        raise DataError(
            f"split '{split}' is there in {len(kinds)} formats: {', '.join(kinds)}",
            where=str(folder),
            remedy="keep one of them, or give one file's path",
        )
    return chosen


def _readable(folder: Path) -> list[Path]:
    known = plugins.names_of("readers", READERS)
    found = [folder / name for name in names_in(folder) if _format(Path(name)) in known]
    found = [file for file in found if kind_of(file) == "file"]
    return [file for file in found if _format(file) != PLAIN] or found


def _words(file: Path) -> set[str]:
    """The words of a file's name, a split's word under the split's own name."""
    return {SPLIT_WORDS.get(word, word) for word in re.split(r"[-_.\s\d]+", file.stem.lower())}


def no_split(split: str, splits: list[str], where: str) -> DataError:
    """The error for a split that a source does not have.

    Args:
        split: the split that was asked for.
        splits: those that are there, by the names of files and folders.
        where: the source.
    """
    near = difflib.get_close_matches(split, splits, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    there = f"it has {', '.join(splits) if splits else 'no split'}"
    return DataError(f"has no split '{split}'", where=where, remedy=f"{hint}{there}")
