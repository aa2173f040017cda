"""Rows of a source that has no lines."""

from __future__ import annotations

from collections.abc import Iterable

from llmchain_fl.core.data.rows import Line, Located


def number_rows(rows: Iterable[dict[str, object]], file: str) -> list[Located]:
    """Each row under its own number, from 1."""
    return [Located(row, Line(file, number)) for number, row in enumerate(rows, start=1)]
