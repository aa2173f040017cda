"""What a site's file names -> its records that fit. The one door to records at a site; ``llmchain_fl/data/source.py``
is the one to public records.

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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import cast

from llmchain_fl.core import plugins
from llmchain_fl.core.data.columns import asked_columns, check_columns, map_record
from llmchain_fl.core.data.readers import Allowed, Dialect, found_in
from llmchain_fl.core.data.rows import Found, LeftOut, Line, Misfit, Rows, sort_out
from llmchain_fl.core.errors import ConfigError

Source = Callable[[str, str, int, int | None], Found]
SOURCES: Mapping[str, Source | str] = MappingProxyType(
    {"hub": "llmchain_fl.data.hub:load", "generated": "llmchain_fl.data.generated:load"}
)
"""``NAME:rest`` -> ``(rest, split, seed, size) -> Found``; a text is imported when a setting asks for it."""

ROWS = re.compile(r"(.+)\[([0-9]{0,15}):([0-9]{0,15})\]", re.DOTALL)
"""``whole[a:b]``, either end left out."""


def read_fitting(
    spec: str,
    *,
    mapping: Mapping[str, str],
    required: Sequence[str],
    split: str = "train",
    dialect: Dialect = Dialect(),  # noqa: B008
    allowed: Collection[str] = (),
) -> tuple[Rows, LeftOut]:
    """The records of a site's source that fit, and how many do not. No message quotes a record or a name from a file.

    Whether a record is kept, and as what, follows from this record, the header line, and the arguments alone: with one
    record more or less in the source, the same others are kept. (In CSV a record begins where the one before it ended,
    see ``tables.py``: a row that leaves a quote open on a later line is a fault of the whole file.)

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

    ``mapping``: project column -> file column. ``required``: project columns that every record must have. ``dialect``,
    ``allowed``: what the site's file says of text files, and of plug-ins.

    Raises:
        DataError: a fault of the whole source.
        ConfigError: a placeholder or rows left over; a plug-in that is not allowed.
    """
    whole, rows = without_rows(spec)
    if rows is not None:
        raise ConfigError([f"'{spec}': a site's records are not chosen by their position; make a file of those rows"])
    columns = asked_columns(mapping, required)
    fitting, left = sort_out(_mapped(found_at(whole, split, 0, None, lambda _: dialect, allowed), columns))
    return Rows([record for record, _ in fitting], [line for _, line in fitting], spec), left


def _mapped(parts: Iterable[Found], columns: Mapping[str, str]) -> Iterator[tuple[dict[str, str], Line] | Misfit]:
    for part in parts:
        if part.columns is not None:
            check_columns(columns, part.columns, part.where, private=True, damaged=part.damaged)
        for item in part.items:
            record = item if isinstance(item, Misfit) else map_record(item, columns)
            yield record if isinstance(record, Misfit) else (record, item.line)


def found_at(
    spec: str, split: str, seed: int, size: int | None, dialect: Callable[[Path], Dialect], allowed: Allowed
) -> Iterable[Found]:
    """What stands at ``spec``, rows left out, as it is; ``seed``, ``size``: of generated records."""
    if "{site}" in spec:
        raise ConfigError([f"'{spec}' still holds {{site}}: it names one source per site, and no site was given"])
    kind, colon, name = spec.partition(":")
    if colon and kind in plugins.names_of("sources", SOURCES):
        load = cast(Source, plugins.load("sources", kind, SOURCES, allowed))
        return [load(name, split, seed, size)]
    return found_in(Path(spec.replace("{split}", split)), split=split, dialect=dialect, allowed=allowed)


def without_rows(spec: str) -> tuple[str, slice | None]:
    """``spec`` without its ``[a:b]``, and those rows; None where it names none.

    >>> without_rows("train.jsonl[:150]")
    ('train.jsonl', slice(None, 150, None))
    """
    match = ROWS.fullmatch(spec)
    if match is None:
        return spec, None
    whole, first, last = match.groups()
    return whole, slice(int(first) if first else None, int(last) if last else None)


def path_of(spec: str) -> Path | None:
    """The file or directory that ``spec`` names, rows left out; None for what is no path (hub, generated)."""
    whole, _ = without_rows(spec)
    kind, colon, _ = whole.partition(":")
    return None if colon and kind in plugins.names_of("sources", SOURCES) else Path(whole)
