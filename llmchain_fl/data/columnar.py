"""Parquet files and data sets saved by ``datasets`` -> rows that know their number.

A ClassLabel column (integers in the file, names in its description) comes out as label names.
"""

from __future__ import annotations

import contextlib
import difflib
from pathlib import Path

from llmchain_fl.data.rows import Located, number_rows
from llmchain_fl.data.text_files import json_object, missing_file, read_text
from llmchain_fl.errors import DataError


def read_parquet(path: Path) -> list[Located]:
    """One Parquet file; ``line`` is the row number from 1.

    Raises:
        DataError: missing file, or not Parquet.
    """
    import pyarrow
    from pyarrow import parquet

    if not path.is_file():
        raise missing_file(path)
    table = None
    # ParquetFile and not read_table, which adds columns for folders named like "site=a".
    with contextlib.suppress(OSError, pyarrow.ArrowException), parquet.ParquetFile(path) as file:
        table = file.read()
    if table is None:
        raise DataError("is not a readable Parquet file", where=str(path), remedy="write it, or copy it here, again")
    described = json_object((table.schema.metadata or {}).get(b"huggingface", b"{}").decode("utf-8", "replace"))
    info = (described or {}).get("info")
    features = info.get("features") if isinstance(info, dict) else None
    return number_rows(with_label_names(table.to_pylist(), features), str(path))


def is_saved_dataset(path: Path) -> bool:
    """Whether ``datasets``' ``save_to_disk`` wrote this directory."""
    return (path / "dataset_dict.json").is_file() or all(
        (path / name).is_file() for name in ("state.json", "dataset_info.json")
    )


def read_saved_dataset(path: Path, split: str) -> list[Located]:
    """A directory of ``Dataset.save_to_disk`` (all of it) or ``DatasetDict.save_to_disk`` (its split ``split``).

    Raises:
        DataError: no such split, or files that ``datasets`` cannot load.
    """
    import datasets

    index = path / "dataset_dict.json"
    if index.is_file():
        named = (json_object(read_text(index)) or {}).get("splits")
        splits = [str(name) for name in named] if isinstance(named, list) else []
        if split not in splits:
            raise no_split(split, splits, str(path))
        path = path / split
    loaded = None
    # ArrowInvalid is a ValueError; a data set without rows is an IndexError.
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        loaded = datasets.load_from_disk(str(path))
    if loaded is None:
        raise DataError("no data set with records can be loaded", where=str(path), remedy="save it again: save_to_disk")
    features = loaded.features.to_dict()
    return number_rows(with_label_names(loaded.to_list(), features), str(path))


def with_label_names(rows: list[dict[str, object]], features: object) -> list[dict[str, object]]:
    """The integers of ClassLabel columns as label names; -1 (in ``datasets``: no label) as None.

    Args:
        rows: the rows, changed in place.
        features: column -> description as ``datasets`` writes it, for instance
            ``{"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}``; anything else changes nothing.
    """
    for column, feature in features.items() if isinstance(features, dict) else ():
        if not (isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")):
            continue
        names = list(feature["names"])
        for row in rows:
            value = row[column]
            row[column] = names[value] if isinstance(value, int) and 0 <= value < len(names) else None
    return rows


def no_split(split: str, splits: list[str], where: str) -> DataError:
    """The error for a split that a source does not have."""
    near = difflib.get_close_matches(split, splits, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return DataError(
        f"has no split '{split}'", where=where, remedy=f"{hint}it has {', '.join(splits) if splits else 'no split'}"
    )
