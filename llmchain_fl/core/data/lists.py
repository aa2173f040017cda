"""Columns whose cells are lists: the words of a text, their tags, the answers to a question.

Inside the project a record is column -> text, so a list is its JSON text, written in one way.

==========================================  ==============================
a cell                                      becomes
==========================================  ==============================
a list of texts, whole numbers, both        its JSON text
text that is such a list (CSV)              the same
an empty list                               ``[]``
text that is no list, any other value       a fault
a list that holds another list, null, a     a fault
fraction, true, half a surrogate pair
==========================================  ==============================
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from llmchain_fl.core.data.rows import HALF_PAIR

MOST_ITEMS = 100_000
"""Items of one list."""


class Listed(str):
    """The name of a column whose cells are lists."""

    __slots__ = ()
    holds = "a JSON list of texts or whole numbers"

    def text(self, cell: object) -> str | None:
        """A cell by the table of the module; None: a fault."""
        return list_text(cell)

    def words(self, cell: str) -> str:
        """What stands in it, in a row."""
        return " ".join(words_of(cell))


def list_text(cell: object) -> str | None:
    """A cell of a ``Listed`` column, by the table of the module; None: a fault."""
    items = read_list(cell)
    return None if items is None or not all(map(is_item, items)) else json.dumps(items, ensure_ascii=False)


def read_list(cell: object) -> list[Any] | None:
    """The list that a cell is, or whose JSON text it is; None: it is none."""
    if isinstance(cell, str):
        with contextlib.suppress(ValueError, RecursionError):
            cell = json.loads(cell)
    return cell if isinstance(cell, list) and len(cell) <= MOST_ITEMS else None


def is_item(item: object) -> bool:
    """Whether it may stand in a list: a text, or a whole number of at most 64 bits."""
    if isinstance(item, str):
        return HALF_PAIR.search(item) is None
    return isinstance(item, int) and not isinstance(item, bool) and item.bit_length() <= 64


def items_of(text: str) -> list[str | int]:
    """The list whose JSON text ``list_text`` gave.

    >>> items_of('["a", 3]')
    ['a', 3]
    """
    items: list[str | int] = json.loads(text)
    return items


def words_of(text: str) -> list[str]:
    """The same, every item as text."""
    return [str(item) for item in items_of(text)]


def listed_words(column: str, cell: str) -> str:
    """A cell as words in a row: a list is joined."""
    return column.words(cell) if isinstance(column, Listed) else cell
