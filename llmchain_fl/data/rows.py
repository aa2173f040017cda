"""Records that know where they came from: as a file gave them (``Located``), and under our names (``Rows``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llmchain_fl.errors import DataError


class Line(NamedTuple):
    """A place in a source, for messages: ``str(line)`` is ``file:number``.

    ``number`` is the line on which the record starts, or the row number where a source has no lines (Parquet,
    saved data sets, the hub, generated records); both count from 1.
    """

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


class Located(NamedTuple):
    """A row as the source gave it, and where."""

    row: dict[str, object]
    line: Line


def number_rows(rows: Sequence[dict[str, object]], file: str) -> list[Located]:
    """The rows of a source without lines."""
    return [Located(row, Line(file, number)) for number, row in enumerate(rows, start=1)]


@dataclass(frozen=True, slots=True)
class Rows:
    """Records under the project's column names.

    Attributes:
        records: one dict per record, column -> text.
        lines: where each record stands.
        where: the source as it was asked for.

    Raises:
        ValueError: not as many lines as records.
    """

    records: list[dict[str, str]]
    lines: list[Line]
    where: str

    def __post_init__(self) -> None:
        if len(self.records) != len(self.lines):
            raise ValueError(f"{len(self.records)} records and {len(self.lines)} lines; each record needs its line")

    def __len__(self) -> int:
        return len(self.records)

    def select(self, indices: Sequence[int]) -> Rows:
        """The rows at ``indices``, in their order."""
        return Rows([self.records[i] for i in indices], [self.lines[i] for i in indices], self.where)

    def column(self, name: str) -> list[str]:
        """One column, in order.

        Raises:
            DataError: a record has no such column.
        """
        lacking = [line for record, line in zip(self.records, self.lines, strict=True) if name not in record]
        if lacking:
            raise DataError(
                f"{how_many(lacking)} a column '{name}' that is empty, missing or no text",
                where=str(lacking[0]),
                remedy=f"fill it in, or map it: {name} = the file's column",
            )
        return [record[name] for record in self.records]


def how_many(lines: Sequence[Line]) -> str:
    """The subject of a fault, as in "3 records (lines 2, 5, 9) have": at most five lines, all of the first's file."""
    here = [str(line.number) for line in lines if line.file == lines[0].file][:5]
    shown = ", ".join(here) + (", ..." if len(here) < len(lines) else "")
    return f"1 record (line {shown}) has" if len(lines) == 1 else f"{len(lines)} records (lines {shown}) have"
