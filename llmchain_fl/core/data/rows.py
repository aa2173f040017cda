"""Records that know where they came from: as a file gave them (``Located``), and under our names (``Rows``).

And those that do not fit (``Misfit``): whoever reads public records stops at the first, a site leaves them out and
counts them (``LeftOut``). Neither says what they hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

T = TypeVar("T")

HALF_PAIR = re.compile("[\ud800-\udfff]")
"""A lone surrogate: no UTF-8 exists for it, so no tokenizer takes it, and no file can hold it."""


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


class Misfit(NamedTuple):
    """A record that cannot be used: where it stands and why.

    ``reason`` is one of a few phrases of ours, for counting; ``detail`` may add numbers. Neither quotes the record.
    """

    line: Line
    reason: str
    remedy: str
    detail: str = ""


class Found(NamedTuple):
    """What a reader gives: the records one by one, and the columns where the source has them for all records at once.

    ``columns`` is None where they stand in each record (JSON lines) and a record may lack one. ``damaged``: columns
    that are there and cannot be read, which matters to whoever asks for them.
    """

    where: str
    columns: tuple[str, ...] | None
    items: Iterable[Located | Misfit]
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many records were left out, by reason, and where the first five of each stand. For the site's own log only.

    Attributes:
        counts: reason -> how many.
        first: reason -> at most five places.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    first: Mapping[str, tuple[Line, ...]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All that were left out."""
        return sum(self.counts.values())

    def __add__(self, other: LeftOut) -> LeftOut:
        reasons = [*self.counts, *(reason for reason in other.counts if reason not in self.counts)]
        return LeftOut(
            {reason: self.counts.get(reason, 0) + other.counts.get(reason, 0) for reason in reasons},
            {reason: (*self.first.get(reason, ()), *other.first.get(reason, ()))[:SHOWN] for reason in reasons},
        )

    def __str__(self) -> str:
        places = {r: ", ".join(map(str, self.first[r])) + ", ..." * (n > SHOWN) for r, n in self.counts.items()}
        parts = [f"{count} ({places[reason]}): {reason}" for reason, count in self.counts.items()]
        return f"{self.total} left out" + (f": {'; '.join(parts)}" if parts else "")


SHOWN = 5
"""Places that a message names at most."""


def sort_out(items: Iterable[T | Misfit]) -> tuple[list[T], LeftOut]:
    """Those that fit, in order, and how many do not; of the misfits of a reason only the first five are remembered."""
    fitting: list[T] = []
    counts: dict[str, int] = {}
    first: dict[str, tuple[Line, ...]] = {}
    for item in items:
        if not isinstance(item, Misfit):
            fitting.append(item)
            continue
        counts[item.reason] = counts.get(item.reason, 0) + 1
        if counts[item.reason] <= SHOWN:
            first[item.reason] = (*first.get(item.reason, ()), item.line)
    return fitting, LeftOut(counts, first)


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
