"""A path -> records. One reader per format, in one table by suffix; directories hold splits.

=========================  =====================================  ==================================
suffix                     a record is                            ``line.number`` counts
=========================  =====================================  ==================================
.jsonl .ndjson .json       one JSON object on one line            lines of the file, from 1
.csv                       one row under a header (RFC 4180)      the line where the record starts
.tsv                       one row under a header, no quoting     lines of the file, from 1
.parquet                   one row                                rows, from 1
.txt                       a line that is not blank: text = it    lines, from 1
=========================  =====================================  ==================================

Every fault is a ``DataError`` that names file and line and never repeats what stands there. A reader raises what is
wrong with the whole file (``Found``) and hands on what is wrong with one record (``Misfit``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from llmchain_fl.core.data.columnar import is_saved_dataset, no_split, read_parquet, read_saved_dataset
from llmchain_fl.core.data.lines import missing_file, names_in
from llmchain_fl.core.data.rows import Found
from llmchain_fl.core.data.tables import read_csv, read_tsv
from llmchain_fl.core.data.text_files import read_jsonl, read_lines
from llmchain_fl.core.errors import DataError
from llmchain_fl.core.regular_file import kind_of

READERS: dict[str, Callable[[Path], Found]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".txt": read_lines,
}
PLAIN = ".txt"
"""In a directory such files count only where there is no other format: they may be notes about the data."""

# The words by which a file name says its split (those of ``datasets``), between any of - _ . and digits.
SPLIT_WORDS: dict[str, str] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}


def found_in(path: Path, *, split: str = "train") -> Iterator[Found]:
    """A file, or the files of one split of a directory, one after the other.

    ===========================================  ========================================================
    ``path`` is                                  read is
    ===========================================  ========================================================
    a file                                       all of it, whatever ``split``
    a directory of ``DatasetDict.save_to_disk``  the split
    a directory of ``Dataset.save_to_disk``      all of it, whatever ``split``
    a directory of files (or its ``data/``)      the files whose names hold the split's word, sorted
    ... whose names hold no split's word         all of them for "train"; a fault for any other split
    ===========================================  ========================================================

    Files in a directory are read by our own readers and not by ``datasets.load_dataset``: a fault can name its
    line, and no second copy of a site's records is left in a cache.

    Args:
        path: a file with a suffix in ``READERS``, or a directory.
        split: which split of a directory; "dev" and "validation" are the same in file names.

    Raises:
        DataError: nothing there, an unknown suffix, no such split, a file that is no such file at all.
    """
    if kind_of(path) != "folder":
        yield _read_file(path)
    elif is_saved_dataset(path):
        yield read_saved_dataset(path, split)
    else:
        for file in _files_of_split(path, split):
            yield _read_file(file)


def _read_file(path: Path) -> Found:
    if kind_of(path) != "file":
        raise missing_file(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"cannot be read: its suffix is '{path.suffix}'", where=str(path), remedy=f"use {', '.join(READERS)}"
        )
    return reader(path)


def _files_of_split(folder: Path, split: str) -> list[Path]:
    files = _readable(folder) or _readable(folder / "data")
    if not files:
        raise DataError("no file of records in this directory", where=str(folder), remedy=f"use {', '.join(READERS)}")
    wanted, known = SPLIT_WORDS.get(split, split), set(SPLIT_WORDS.values())
    words = {file: _words(file) for file in files}
    there = sorted(known & set().union(*words.values())) or ["train"]
    chosen = [file for file in files if wanted in words[file]]
    if not chosen and wanted == "train" and there == ["train"]:
        chosen = files
    if not chosen:
        raise no_split(split, there, str(folder))
    kinds = sorted({file.suffix.lower() for file in chosen})
    if len(kinds) > 1:
        raise DataError(
            f"split '{split}' is there in {len(kinds)} formats: {', '.join(kinds)}",
            where=str(folder),
            remedy="keep one of them, or give one file's path",
        )
    return chosen


def _readable(folder: Path) -> list[Path]:
    found = [folder / name for name in names_in(folder) if Path(name).suffix.lower() in READERS]
    found = [file for file in found if kind_of(file) == "file"]
    return [file for file in found if file.suffix.lower() != PLAIN] or found


def _words(file: Path) -> set[str]:
    """The words of a file's name, a split's word under the split's own name."""
    return {SPLIT_WORDS.get(word, word) for word in re.split(r"[-_.\s\d]+", file.stem.lower())}
