"""Columns whose cells are conversations: lists of turns, objects with ``role`` and ``content``, two texts.

==========================================  ==============================
a turn                                      becomes
==========================================  ==============================
an object with both, both texts             these two, whatever else it has
a role or a content that is missing, null,  a fault
no text, half a surrogate pair
anything else than an object                a fault
==========================================  ==============================

Inside the project a conversation is its JSON text, as every list (``data/lists.py``).
"""

from __future__ import annotations

import json

from llmchain_fl.core.data.lists import Listed, is_item, read_list


class Turns(Listed):
    """The name of a column whose cells are conversations."""

    __slots__ = ()
    holds = 'a JSON list of {"role": "user", "content": "..."}'

    def text(self, cell: object) -> str | None:
        """A cell by the table of the module; None: a fault."""
        turns = read_list(cell)
        if turns is None or not all(isinstance(turn, dict) for turn in turns):
            return None
        said = [[turn.get("role"), turn.get("content")] for turn in turns]
        if not all(isinstance(text, str) and is_item(text) for pair in said for text in pair):
            return None
        return json.dumps([{"role": role, "content": content} for role, content in said], ensure_ascii=False)

    def words(self, cell: str) -> str:
        """What was said, in a row."""
        return " ".join(turn["content"] for turn in turns_of(cell))


def turns_of(text: str) -> list[dict[str, str]]:
    """The conversation whose JSON text a cell is."""
    turns: list[dict[str, str]] = json.loads(text)
    return turns
