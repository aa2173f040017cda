"""What a data setting names -> rows. The one door to records for both a site and a simulation.

============================  ==========================================================================
spec                          is
============================  ==========================================================================
data/train.jsonl              a file (``readers.READERS``); all of it, whatever the split
data/{site}/{split}.csv       a file for every site and split
data/messages                 a directory: saved by ``datasets``, or files with the split in their name
hub:org/name[:config]         a data set of the Hugging Face hub, by ``datasets.load_dataset``
generated:bank-messages       made-up records (``llmchain_fl.data.generated``), in the asked size
any of these[a:b]             its rows from a (counted from 0) up to b, b left out: [:150], [150:], [0:2000]
============================  ==========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from llmchain_fl.data.columnar import with_label_names
from llmchain_fl.data.columns import map_columns
from llmchain_fl.data.readers import read_records
from llmchain_fl.data.rows import Located, Rows, number_rows
from llmchain_fl.errors import ConfigError, DataError


def read_rows(
    spec: str,
    *,
    mapping: Mapping[str, str],
    required: Sequence[str],
    split: str,
    seed: int,
    size: int | None = None,
    label_names: Sequence[str] | None = None,
) -> Rows:
    """Load a source and map its columns.

    Args:
        spec: what the table above says, with ``{site}`` already resolved.
        mapping: project column -> file column.
        required: project columns every record must have, for instance ``("text", "label")``.
        split: "train", "validation", "test", ...
        seed: chooses the records where ``size`` is smaller than the source, and generated records.
        size: at most so many records; None for all.
        label_names: the label names of 0, 1, 2, ... where the file holds numbers.

    Raises:
        DataError: the source cannot be read, or a column or a cell is missing.
        ConfigError: a size under 1, or a placeholder left over.
    """
    located = load_source(spec, split=split, seed=seed, size=size)
    records = map_columns(located, mapping, required, spec, label_names=label_names)
    return Rows(records, [item.line for item in located], spec)


def load_source(spec: str, *, split: str, seed: int, size: int | None) -> list[Located]:
    """The records of a source as they are, in its order.

    ====================================  ==================================================================
    case                                  then
    ====================================  ==================================================================
    ``size`` under the number of records  a uniform draw without replacement by ``seed``, in source order
    ``size`` at or over it                all of them
    a file, one saved ``Dataset``         ``split`` changes nothing: the caller gives one path per split
    ``spec`` ends in ``[a:b]``            those rows first, as Python slices, then the draw
    ====================================  ==================================================================

    Raises:
        DataError: as ``read_records``, a data set that cannot be had, no row in ``[a:b]``.
        ConfigError: a size under 1, or ``{site}`` left over.
    """
    if size is not None and size < 1:
        raise ConfigError([f"size is {size}; it must be at least 1, or left out for all records of '{spec}'"])
    if "{site}" in spec:
        raise ConfigError([f"'{spec}' still holds {{site}}: it names one source per site, and no site was given"])
    whole, rows = without_rows(spec)
    kind, colon, name = whole.partition(":")
    load = SOURCES.get(kind) if colon else None
    if load is not None:
        found = load(name, split, seed, None if rows else size)
    else:
        found = read_records(Path(whole.replace("{split}", split)), split=split)
    kept = found[rows] if rows else found
    if not kept:
        raise DataError(f"has {len(found)} records, none of them in these rows", where=spec, remedy="give other rows")
    return _draw(kept, seed, size)


def without_rows(spec: str) -> tuple[str, slice | None]:
    """``spec`` without its ``[a:b]``, and those rows; None where it names none.

    >>> without_rows("train.jsonl[:150]")
    ('train.jsonl', slice(None, 150, None))
    """
    found = ROWS.fullmatch(spec)
    if found is None:
        return spec, None
    whole, first, last = found.groups()
    return whole, slice(int(first) if first else None, int(last) if last else None)


def path_of(spec: str) -> Path | None:
    """The file or directory that ``spec`` names, rows left out; None for what is no path (hub, generated)."""
    whole, _ = without_rows(spec)
    return None if whole.partition(":")[0] in SOURCES else Path(whole)


def resolve_site(spec: str, site: str) -> str:
    """``spec`` with the site's name for ``{site}``.

    Raises:
        ConfigError: a site name with anything but letters, digits, ``_ - .`` (it might lead out of its folder).
    """
    if "{site}" in spec and (not re.fullmatch(r"[\w.-]+", site) or set(site) == {"."}):
        raise ConfigError([f"site name '{site}' cannot stand in a path; use letters, digits, '_', '-' and '.'"])
    return spec.replace("{site}", site)


def load_hub(name: str, split: str, seed: int, size: int | None) -> list[Located]:
    """``org/name[:config]`` from the hub or its local cache.

    Raises:
        DataError: offline, not found, no such config or split; with how to use a local copy instead.
    """
    import datasets

    repository, _, config = name.partition(":")
    failure, loaded = "", None
    try:
        loaded = datasets.load_dataset(repository, config or None, split=split)
    except (OSError, ValueError, LookupError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        failure = type(error).__name__  # the message may quote records
    where = f"hub:{name}"
    if loaded is None:
        raise DataError(
            f"split '{split}' cannot be loaded ({failure})",
            where=where,
            remedy="check name, config and split; without a network, save_to_disk it elsewhere and give that directory",
        )
    if not len(loaded):
        raise DataError(f"split '{split}' holds no record", where=where, remedy="choose another split")
    return number_rows(with_label_names(loaded.to_list(), loaded.features.to_dict()), f"{where}[{split}]")


def load_generated(name: str, split: str, seed: int, size: int | None) -> list[Located]:
    """``size`` made-up records; without a size ``GENERATED_SIZE`` of the split.

    Raises:
        DataError: an unknown name or split.
    """
    from llmchain_fl.data.generated import generate

    made = generate(name, seed, size or GENERATED_SIZE.get(split, 500), split)
    rows: list[dict[str, object]] = [dict(row) for row in made]
    return number_rows(rows, f"generated:{name}[{split}]")


GENERATED_SIZE = {"train": 2000, "test": 500}
"""How many records are generated where nobody says how many."""

SOURCES: dict[str, Callable[[str, str, int, int | None], list[Located]]] = {
    "hub": load_hub,
    "generated": load_generated,
}


ROWS = re.compile(r"(.+)\[(\d*):(\d*)\]", re.DOTALL)
"""``whole[a:b]``, either end left out."""


def _draw(records: list[Located], seed: int, size: int | None) -> list[Located]:
    if size is None or size >= len(records):
        return records
    chosen = np.random.default_rng(seed).choice(len(records), size, replace=False)
    return [records[index] for index in sorted(chosen)]
