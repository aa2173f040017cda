"""Parquet files and data sets saved by ``datasets`` -> rows that know their number.

A ClassLabel column (integers in the file, names in its description) comes out as label names. What the libraries say
of a file they cannot read is never passed on: it may quote a cell.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llmchain_fl.core.data.readers import Dialect, missing_file, names_in
from llmchain_fl.core.data.rows import Found
from llmchain_fl.core.data.tables import check_header
from llmchain_fl.core.data.text_files import json_object
from llmchain_fl.core.errors import DataError
from llmchain_fl.core.foreign import attempt
from llmchain_fl.core.regular_file import kind_of
from llmchain_fl.data.arrow_cells import column_cells
from llmchain_fl.data.directories import no_split
from llmchain_fl.data.json_file import read_text
from llmchain_fl.data.numbered import number_rows
from llmchain_fl.extras import need

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

log = logging.getLogger("llmchain_fl.data")


def read_parquet(path: Path, dialect: Dialect) -> Found:
    """One Parquet file; ``line`` is the row number from 1. A cell that no text can be made of is a fault of its row.

    Raises:
        DataError: missing file, not Parquet, no column that can be read, two columns of one name.
    """
    if kind_of(path) != "file":
        raise missing_file(path)
    parts = attempt(lambda: _parquet_columns(path))
    if parts is None:
        raise DataError("is not a readable Parquet file", where=str(path), remedy="write it, or copy it here, again")
    return _rows(*parts, str(path))


Columns = list[tuple[str, "pyarrow.ChunkedArray | None"]]
"""Names and columns; None: it cannot be read."""


def _parquet_columns(path: Path) -> tuple[Columns, object]:
    from pyarrow import parquet

    # ParquetFile and not read_table, which adds columns for folders named like "site=a".
    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        whole = attempt(file.read)
        columns = [_alone(file, name) for name in names] if whole is None else whole.columns
        metadata = file.schema_arrow.metadata or {}
    described = json_object(metadata.get(b"huggingface", b"{}").decode("utf-8", "replace"))
    info = (described or {}).get("info")
    return list(zip(names, columns, strict=True)), info.get("features") if isinstance(info, dict) else None


def _alone(file: parquet.ParquetFile, name: str) -> pyarrow.ChunkedArray | None:
    """One column of a file in which another one is damaged."""
    table = attempt(lambda: file.read(columns=[name]))
    return table.column(0) if table is not None and table.column_names == [name] else None


def read_saved_dataset(path: Path, split: str) -> Found:
    """A directory of ``Dataset.save_to_disk`` (all of it) or ``DatasetDict.save_to_disk`` (its split ``split``).

    Raises:
        ConfigError: ``datasets`` is not installed.
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
    need("hub", f"{path}: a saved data set")
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
    files = [name for name in names if isinstance(name, str) and name in there]
    return files if len(files) == len(listed) else None


def _saved_table(path: Path) -> tuple[pyarrow.Table, object]:
    import datasets

    loaded = datasets.load_from_disk(str(path))
    return loaded.with_format("arrow")[:], loaded.features.to_dict()


def table_rows(table: pyarrow.Table, features: object, where: str) -> Found:
    """The rows of an Arrow table, each made of its own cells alone.

    Raises:
        DataError: no column can be read, or two have one name.
    """
    columns = attempt(lambda: list(zip(table.column_names, table.columns, strict=True)))
    return _rows(columns or [], features, where)


def _rows(columns: Columns, features: object, where: str) -> Found:
    header = check_header([name for name, _ in columns], where)
    cells = {name: None if column is None else attempt(partial(column_cells, column)) for name, column in columns}
    lengths = Counter(len(values) for values in cells.values() if values is not None)
    usual = max(lengths, key=lengths.__getitem__, default=0)
    whole = {name: values for name, values in cells.items() if values is not None and len(values) == usual}
    if cells and not whole:
        raise DataError("no column of it can be read", where=where, remedy="write it, or copy it here, again")
    if len(whole) < len(cells):
        log.warning("%s: %d of %d columns are damaged and left out", where, len(cells) - len(whole), len(cells))
    kinds: Mapping[object, object] = features if isinstance(features, dict) else {}
    named = {name: with_label_names(values, kinds.get(name)) for name, values in whole.items()}
    rows = [dict(zip(named, row, strict=True)) for row in zip(*named.values(), strict=True)]
    damaged = tuple(name for name in header if name not in whole)
    return Found(where, tuple(whole), number_rows(rows, where), damaged)


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
