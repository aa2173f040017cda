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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import cast

import numpy as np

from llmchain_fl.core import plugins
from llmchain_fl.core.data.columnar import table_rows
from llmchain_fl.core.data.columns import asked_columns, check_columns, map_columns, map_record
from llmchain_fl.core.data.readers import found_in
from llmchain_fl.core.data.rows import Found, LeftOut, Line, Located, Misfit, Rows, sort_out
from llmchain_fl.core.errors import ConfigError, DataError
from llmchain_fl.core.foreign import attempt
from llmchain_fl.core.plugins import names_of


def read_rows(
    spec: str,
    *,
    mapping: Mapping[str, str],
    required: Sequence[str],
    split: str,
    seed: int,
    size: int | None = None,
    label_names: Sequence[str] | None = None,
    private: bool = True,
) -> Rows:
    """Load a source and map its columns: every record, or an error. A site uses ``read_fitting``.

    Args:
        spec: what the table above says, with ``{site}`` already resolved.
        mapping: project column -> file column.
        required: project columns every record must have, for instance ``("text", "label")``.
        split: "train", "validation", "test", ...
        seed: chooses the records where ``size`` is smaller than the source, and generated records.
        size: at most so many records; None for all.
        label_names: the label names of 0, 1, 2, ... where the file holds numbers.
        private: whether the records are somebody's; False lets an error list the columns of a public file.

    Raises:
        DataError: the source cannot be read, or a column or a cell is missing.
        ConfigError: a size under 1, or a placeholder left over.
    """
    located = load_source(spec, split=split, seed=seed, size=size)
    records = map_columns(located, mapping, required, spec, label_names=label_names, private=private)
    return Rows(records, [item.line for item in located], spec)


def read_fitting(
    spec: str, *, mapping: Mapping[str, str], required: Sequence[str], split: str = "train"
) -> tuple[Rows, LeftOut]:
    """The records of a site's source that fit, and how many do not. No message quotes a record or a name from a file.

    Whether a record is kept, and as what, follows from this record, ``mapping`` and ``required`` alone: with one record
    more or less in the source, the same others are kept. (In CSV a record begins where the one before it ended, see
    ``tables.py``: a row that leaves a quote open on a later line is a fault of the whole file.)

    ============================================================================  ==============================
    in the source                                                                 then
    ============================================================================  ==============================
    a line that is no JSON object, a row with too many or too few fields          left out
    bytes that are not UTF-8, a line or a field that is too long                  left out
    a column that is asked for: not there (JSON), empty, no text, a lone half     left out
    of a surrogate pair
    nothing that fits, or nothing at all                                          no record, and no error
    no such file, unknown suffix, not Parquet, damaged pages or offsets           DataError
    a table whose header lacks a column that is asked for                         DataError
    ``[a:b]`` behind the name                                                     ConfigError: one record more in
                                                                                  front would push another one out
    ============================================================================  ==============================

    Args:
        spec: what the table at the top of this file says, with ``{site}`` already resolved.
        mapping: project column -> file column.
        required: project columns every record must have.
        split: which split of a directory.

    Raises:
        DataError: a fault of the whole source.
        ConfigError: a placeholder or rows left over.
    """
    whole, rows = without_rows(spec)
    if rows is not None:
        raise ConfigError([f"'{spec}': a site's records are not chosen by their position; make a file of those rows"])
    asked = asked_columns(mapping, required)
    kept, left = sort_out(_mapped(_found(whole, split, 0, None), asked))
    return Rows([record for record, _ in kept], [line for _, line in kept], spec), left


def _mapped(found: Iterable[Found], asked: Mapping[str, str]) -> Iterator[tuple[dict[str, str], Line] | Misfit]:
    for part in found:
        if part.columns is not None:
            check_columns(asked, part.columns, part.where, private=True)
        for item in part.items:
            record = item if isinstance(item, Misfit) else map_record(item, asked)
            yield record if isinstance(record, Misfit) else (record, item.line)


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
    whole, rows = without_rows(spec)
    parts = _found(whole, split, seed, None if rows else size)
    found = [record for part in parts for record in part.records()]
    if not found:
        raise DataError("holds no record", where=whole, remedy="give a source with at least one record")
    kept = found[rows] if rows else found
    if not kept:
        raise DataError(f"has {len(found)} records, none of them in these rows", where=spec, remedy="give other rows")
    return _draw(kept, seed, size)


def _found(spec: str, split: str, seed: int, size: int | None) -> Iterable[Found]:
    if "{site}" in spec:
        raise ConfigError([f"'{spec}' still holds {{site}}: it names one source per site, and no site was given"])
    kind, colon, name = spec.partition(":")
    if colon and kind in names_of("sources", SOURCES):
        load = cast("Source", plugins.load("sources", kind, SOURCES))
        return [load(name, split, seed, size)]
    return found_in(Path(spec.replace("{split}", split)), split=split)


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
    return None if whole.partition(":")[0] in names_of("sources", SOURCES) else Path(whole)


def resolve_site(spec: str, site: str) -> str:
    """``spec`` with the site's name for ``{site}``.

    Raises:
        ConfigError: a site name with anything but letters, digits, ``_ - .`` (it might lead out of its folder).
    """
    if "{site}" in spec and (not re.fullmatch(r"[\w.-]+", site) or set(site) == {"."}):
        raise ConfigError([f"site name '{site}' cannot stand in a path; use letters, digits, '_', '-' and '.'"])
    return spec.replace("{site}", site)


def load_hub(name: str, split: str, seed: int, size: int | None) -> Found:
    """``org/name[:config]`` from the hub or its local cache.

    Raises:
        DataError: offline, not found, no such config or split; with how to use a local copy instead.
    """
    import datasets

    repository, _, config = name.partition(":")
    where = f"hub:{name}"
    loaded = attempt(lambda: datasets.load_dataset(repository, config or None, split=split))
    table = None if loaded is None else attempt(lambda: (loaded.with_format("arrow")[:], loaded.features.to_dict()))
    if table is None:
        raise DataError(
            f"split '{split}' cannot be loaded",
            where=where,
            remedy="check name, config and split; without a network, save_to_disk it elsewhere and give that directory",
        )
    return table_rows(*table, f"{where}[{split}]")


Source = Callable[[str, str, int, int | None], Found]
SOURCES: Mapping[str, Source | str] = MappingProxyType(
    {
        "hub": load_hub,
        "generated": "llmchain_fl.data.generated:load",
    }
)
"""``NAME:rest`` -> ``(rest, split, seed, size) -> Found``; a text is imported when a setting asks for it."""


ROWS = re.compile(r"(.+)\[([0-9]{0,15}):([0-9]{0,15})\]", re.DOTALL)
"""``whole[a:b]``, either end left out."""


def _draw(records: list[Located], seed: int, size: int | None) -> list[Located]:
    if size is None or size >= len(records):
        return records
    chosen = np.random.default_rng(seed).choice(len(records), size, replace=False)
    return [records[index] for index in sorted(chosen)]
