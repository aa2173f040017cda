"""What a card is made of: the files of a hub folder, parsed within their bounds, and what the manifest says beside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llmchain_fl.hub import layout
from llmchain_fl.hub.refused import refuse
from llmchain_fl.hub.strict_json import Tree, parse_object

Row = Mapping[str, Any]
MOST_ROWS = 200_000


@dataclass(frozen=True)
class Named:
    """What the signed manifest says beside the files."""

    name: str
    version: int
    made_by: str
    base_name: str
    base_digest: str
    parent: str


@dataclass(frozen=True)
class Sources:
    """The files of a hub folder, parsed."""

    files: Mapping[str, bytes]

    def tree(self, name: str) -> Tree:
        """One JSON file; {} where it is not there.

        Raises:
            HubError: form, size.
        """
        data = self.files.get(name)
        return {} if data is None else parse_object(data, name, layout.BOUNDS[name])

    @cached_property
    def rows(self) -> list[Row]:
        """The measurements, as ``metrics_file`` reads them.

        Raises:
            HubError: form, size: a line that is none.
        """
        lines = self.files[layout.METRICS].splitlines()
        if len(lines) > MOST_ROWS:
            raise refuse("size", f"{layout.METRICS} has {len(lines):,} lines, at most {MOST_ROWS:,}")
        rows = [parse_object(line, layout.METRICS, layout.MIB) for line in lines]
        for row in rows:
            sound = type(row.get("round")) is int and isinstance(row.get("metric"), str) and "value" in row
            if not sound or not isinstance(row["value"], int | float | None):
                raise refuse("form", f"{layout.METRICS} has a line that is no measurement")
            row["value"] = math.nan if row["value"] is None else row["value"]
        return list(rows)

    @cached_property
    def last_round(self) -> int:
        """Of all rows; 0 without any."""
        return max((row["round"] for row in self.rows), default=0)
