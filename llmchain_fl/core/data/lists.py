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

from llmchain_fl.core.data.rows import HALF_PAIR

MOST_ITEMS = 100_000
"""Items of one list."""


class Listed(str):
    """The name of a column whose cells are lists."""

    __slots__ = ()


def list_text(cell: object) -> str | None:
    """A cell of such a column, by the table of the module; None: a fault."""
    if isinstance(cell, str):
        with contextlib.suppress(ValueError, RecursionError):
            cell = json.loads(cell)
    if not isinstance(cell, list) or len(cell) > MOST_ITEMS or not all(map(_is_item, cell)):
        return None
    return json.dumps(cell, ensure_ascii=False)


def _is_item(item: object) -> bool:
    if isinstance(item, str):
        return HALF_PAIR.search(item) is None
    return isinstance(item, int) and not isinstance(item, bool) and item.bit_length() <= 64


def items_of(text: str) -> list[str | int]:
    """The list whose JSON text ``list_text`` gave.

    >>> items_of('["a", 3]')
    ['a', 3]
    """
    found: list[str | int] = json.loads(text)
    return found


def words_of(text: str) -> list[str]:
    """The same, every item as text."""
    return [str(item) for item in items_of(text)]


def listed_words(column: str, cell: str) -> str:
    """A cell as words in a row: a list is joined."""
    return " ".join(words_of(cell)) if isinstance(column, Listed) else cell
