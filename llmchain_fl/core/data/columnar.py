"""Parquet files and data sets saved by ``datasets`` -> rows that know their number.

A ClassLabel column (integers in the file, names in its description) comes out as label names. What the libraries say
of a file they cannot read is never passed on: it may quote a cell.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from llmchain_fl.core.data.arrow_cells import column_cells
from llmchain_fl.core.data.lines import missing_file, names_in, read_text
from llmchain_fl.core.data.rows import Found, number_rows
from llmchain_fl.core.data.tables import check_header
from llmchain_fl.core.data.text_files import json_object
from llmchain_fl.core.errors import DataError
from llmchain_fl.core.foreign import attempt
from llmchain_fl.core.regular_file import kind_of

if TYPE_CHECKING:
    import pyarrow


def read_parquet(path: Path) -> Found:
    """One Parquet file; ``line`` is the row number from 1. A cell that no text can be made of is a fault of its row.

    Raises:
        DataError: missing file, not Parquet, damaged pages, two columns of one name.
    """
    if kind_of(path) != "file":
        raise missing_file(path)
    table = attempt(lambda: _parquet_table(path))
    if table is None:
        raise DataError("is not a readable Parquet file", where=str(path), remedy="write it, or copy it here, again")
    return table_rows(*table, str(path))


def _parquet_table(path: Path) -> tuple[pyarrow.Table, object]:
    from pyarrow import parquet

    # ParquetFile and not read_table, which adds columns for folders named like "site=a".
    with parquet.ParquetFile(path) as file:
        table = file.read()
    described = json_object((table.schema.metadata or {}).get(b"huggingface", b"{}").decode("utf-8", "replace"))
    info = (described or {}).get("info")
    return table, info.get("features") if isinstance(info, dict) else None


def is_saved_dataset(path: Path) -> bool:
    """Whether ``datasets``' ``save_to_disk`` wrote this directory."""
    names = names_in(path)
    return "dataset_dict.json" in names or {"state.json", "dataset_info.json"} <= set(names)


def read_saved_dataset(path: Path, split: str) -> Found:
    """A directory of ``Dataset.save_to_disk`` (all of it) or ``DatasetDict.save_to_disk`` (its split ``split``).

    Raises:
        DataError: no such split, or files that ``datasets`` cannot load.
    """
    index = path / "dataset_dict.json"
    if kind_of(index) == "file":
        named = (json_object(read_text(index)) or {}).get("splits")
        there = names_in(path)
        splits = [name for name in named if isinstance(name, str) and name in there] if isinstance(named, list) else []
        if split not in splits:
            raise no_split(split, splits, str(path))
        path = path / split
    parts = _parts(path)
    if parts == []:
        return Found(str(path), None, ())  # datasets cannot load what it saved without rows
    table = attempt(lambda: _saved_table(path)) if parts else None
    if table is None:
        raise DataError("no data set can be loaded", where=str(path), remedy="save it again: save_to_disk")
    return table_rows(*table, str(path))


def _parts(folder: Path) -> list[str] | None:
    """The files that hold a saved data set's rows; None where they are not what ``save_to_disk`` writes.

    Everything in the folder must be a regular file or a folder, for opening a pipe would wait.
    """
    if any(kind_of(folder / name) not in ("file", "folder") for name in names_in(folder)):
        return None
    listed = (json_object(read_text(folder / "state.json")) or {}).get("_data_files")
    if not isinstance(listed, list):
        return None
    there = names_in(folder)
    names = [part.get("filename") for part in listed if isinstance(part, dict)]
    found = [name for name in names if isinstance(name, str) and name in there]
    return found if len(found) == len(listed) else None


def _saved_table(path: Path) -> tuple[pyarrow.Table, object]:
    import datasets

    loaded = datasets.load_from_disk(str(path))
    return loaded.with_format("arrow")[:], loaded.features.to_dict()


def table_rows(table: pyarrow.Table, features: object, where: str) -> Found:
    """The rows of an Arrow table, each made of its own cells alone.

    Raises:
        DataError: the table is damaged, or has two columns of one name.
    """
    names = attempt(lambda: tuple(table.column_names))
    cells = attempt(lambda: [column_cells(column) for column in table.columns])
    if names is None or cells is None:
        raise DataError("a column is damaged", where=where, remedy="write it, or copy it here, again")
    header = check_header(names, where)
    told = features if isinstance(features, dict) else {}
    columns = {name: with_label_names(column, told.get(name)) for name, column in zip(header, cells, strict=True)}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return Found(where, header, number_rows(rows, where))


def with_label_names(cells: list[object], feature: object) -> list[object]:
    """The integers of a ClassLabel column as label names; -1 (in ``datasets``: no label) and others as None.

    Args:
        cells: the column.
        feature: its description as ``datasets`` writes it, for instance
            ``{"names": ["no", "yes"], "_type": "ClassLabel"}``; anything else changes nothing.
    """
    if not (isinstance(feature, dict) and feature.get("_type") == "ClassLabel"):
        return cells
    names = feature.get("names")
    if not (isinstance(names, list) and names):
        return cells
    return [names[cell] if isinstance(cell, int) and 0 <= cell < len(names) else None for cell in cells]


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
