"""Synthetic messages to the made-up bank after it gave its products new names: the words are new, the intents are not.

A message is one of ``bank_messages`` in which words of the old offer stand as customers call them now
(``bank_new_words.toml``): "the moneybox has eaten my kestrel". What a model learned from the old words does not tell
what the new ones mean; whoever corrects its answers does. Templates of split "test" are disjoint from those of "train",
so a score there is about rephrasings that nobody corrected. Persons are none of ``bank_messages``.
"""

from __future__ import annotations

import random
import re
import tomllib
from functools import cache
from importlib.resources import files

from llmchain_fl.data.generated.bank_messages import draw_messages, rows_of


def bank_renamed(seed: int, size: int, split: str) -> list[dict[str, str]]:
    """Labelled messages in new words.

    Args:
        seed: any integer.
        size: number of rows, at least 1 (checked by ``generate``).
        split: "train" or "test"; the two never share a template.

    Returns:
        ``size`` rows ``{"text", "label", "stage", "branch", "person"}`` in random order.
    """
    drawn = draw_messages(random.Random(f"bank-renamed/{seed}/{split}"), f"r{seed}-{split}", size, split)
    return [{**row, "text": renamed(row["text"])} for row in rows_of(drawn)]


def renamed(text: str) -> str:
    """``text`` with the old words replaced, whole words alone, longer ones first; a capital stays one."""
    pattern, new = _words()

    def put(match: re.Match[str]) -> str:
        word = new[match[0].lower()]
        return word.capitalize() if match[0][0].isupper() else word

    return pattern.sub(put, text)


@cache
def _words() -> tuple[re.Pattern[str], dict[str, str]]:
    table = tomllib.loads(files(__package__).joinpath("bank_new_words.toml").read_text(encoding="utf-8"))
    new = {old: word for word, olds in table.items() for old in olds}
    longest = sorted(new, key=lambda old: (-len(old), old))
    return re.compile(rf"\b({'|'.join(map(re.escape, longest))})\b", re.IGNORECASE), new
