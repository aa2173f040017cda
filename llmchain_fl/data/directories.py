"""A directory of records: the files of one split; or what ``save_to_disk`` of ``datasets`` wrote.

Files in a directory are read by our own readers and not by ``datasets.load_dataset``: a fault can name its line, and no
second copy of a site's records is left in a cache.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from llmchain_fl.core import plugins
from llmchain_fl.core.data.readers import READERS, format_of, formats, names_in
from llmchain_fl.core.data.rows import Found
from llmchain_fl.core.errors import DataError
from llmchain_fl.core.regular_file import kind_of

PLAIN = "txt"
"""In a directory such files count only where there is no other format: they may be notes about the data."""

# The words by which a file name says its split (those of ``datasets``), between any of - _ . and digits.
SPLIT_WORDS: dict[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


def found_in(path: Path, split: str) -> list[Path] | Found:
    """The files of one split, or the records of a saved data set.

    ===========================================  ========================================================
    ``path`` is                                  read is
    ===========================================  ========================================================
    a directory of ``DatasetDict.save_to_disk``  the split
    a directory of ``Dataset.save_to_disk``      all of it, whatever ``split``
    a directory of files (or its ``data/``)      the files whose names hold the split's word, sorted
    ... whose names hold no split's word         all of them for "train"; a fault for any other split
    a directory of directories train, test, ...  the files in the one of the split
    ===========================================  ========================================================

    Raises:
        DataError: no file of records, no such split, a split in two formats.
    """
    names = names_in(path)
    if "dataset_dict.json" not in names and not {"state.json", "dataset_info.json"} <= set(names):
        return _files_of_split(path, split)
    from llmchain_fl.data.columnar import read_saved_dataset

    return read_saved_dataset(path, split)


def _files_of_split(folder: Path, split: str) -> list[Path]:
    wanted, known = SPLIT_WORDS.get(split, split), set(SPLIT_WORDS.values())
    words = {file: _words(file) for file in _readable(folder) or _readable(folder / "data")}
    if not known & set().union(*words.values()):
        inner = [folder / name for name in names_in(folder) if known & _words(folder / name)]
        words = {file: _words(one) for one in inner for file in _readable(one)} or words
    if not words:
        raise DataError("no file of records in this directory", where=str(folder), remedy=formats())
    there = sorted(known & set().union(*words.values())) or ["train"]
    chosen = [file for file in words if wanted in words[file]]
    if not chosen and wanted == "train" and there == ["train"]:
        chosen = list(words)
    if not chosen:
        raise no_split(split, there, str(folder))
    kinds = sorted({f".{format_of(file)}" for file in chosen})
    if len(kinds) > 1:
        raise DataError(
            f"split '{split}' is there in {len(kinds)} formats: {', '.join(kinds)}",
            where=str(folder),
            remedy="keep one of them, or give one file's path",
        )
    return chosen


def _readable(folder: Path) -> list[Path]:
    known = plugins.names_of("readers", READERS)
    paths = [folder / name for name in names_in(folder) if format_of(Path(name)) in known]
    paths = [file for file in paths if kind_of(file) == "file"]
    return [file for file in paths if format_of(file) != PLAIN] or paths


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
