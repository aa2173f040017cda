"""Data the project writes itself: synthetic, deterministic for a seed, made in memory.

::

    generate("bank-messages", seed=0, size=2000, split="train")    # {"text", "label", ...}
    generate("bank-dialogues", seed=0, size=2000, split="train")   # {"prompt", "answer", ...}
    generate("bank-choices", seed=0, size=2000, split="train")     # {"query", "candidates", "grades", ...}
    generate("bank-renamed", seed=0, size=2000, split="train")     # as bank-messages, in words that came up later
    generate("bank-pairs", seed=0, size=2000, split="train")       # {"text", "text2", "label", ...}
    generate("bank-conversations", seed=0, size=2000, split="train")   # {"messages", ...}
    generate("leaflet-questions", seed=0, size=2000, split="train")    # {"question", "context", "answers", ...}
    generate("leaflet-questions-or-none", seed=0, size=2000, split="train")   # the same; every third has no answer
    generate("leaflet-unanswerable", seed=0, size=500, split="test")   # {"question", ...}

Nothing here comes from a real person or a published data set, so results on it are results about made-up text.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from llmchain_fl.core.data.rows import Found
from llmchain_fl.core.errors import DataError
from llmchain_fl.data.generated.bank_choices import bank_choices
from llmchain_fl.data.generated.bank_dialogues import bank_conversations, bank_dialogues
from llmchain_fl.data.generated.bank_messages import bank_messages
from llmchain_fl.data.generated.bank_pairs import bank_pairs
from llmchain_fl.data.generated.bank_passages import bank_passages
from llmchain_fl.data.generated.bank_renamed import bank_renamed
from llmchain_fl.data.generated.bank_templates import LABELS, SPLITS, STAGES, label_texts
from llmchain_fl.data.generated.leaflets import (
    leaflet_questions,
    leaflet_questions_or_none,
    leaflet_unanswerable,
    leaflets,
)
from llmchain_fl.data.numbered import number_rows

__all__ = [
    "GENERATORS",
    "LABELS",
    "SPLITS",
    "STAGES",
    "bank_choices",
    "bank_conversations",
    "bank_dialogues",
    "bank_messages",
    "bank_pairs",
    "bank_passages",
    "bank_renamed",
    "generate",
    "label_texts",
    "leaflet_questions",
    "leaflet_questions_or_none",
    "leaflet_unanswerable",
    "leaflets",
    "load",
]

Generator = Callable[[int, int, str], list[dict[str, str]]]

GENERATORS: dict[str, Generator] = {
    "bank-messages": bank_messages,
    "bank-dialogues": bank_dialogues,
    "bank-choices": bank_choices,
    "bank-renamed": bank_renamed,
    "bank-pairs": bank_pairs,
    "bank-conversations": bank_conversations,
    "leaflet-questions": leaflet_questions,
    "leaflet-questions-or-none": leaflet_questions_or_none,
    "leaflet-unanswerable": leaflet_unanswerable,
}
"""Name in a configuration -> generator ``(seed, size, split) -> rows``."""


def generate(name: str, seed: int, size: int, split: str) -> list[dict[str, str]]:
    """Rows of one of the generators.

    Args:
        name: a key of ``GENERATORS``.
        seed: any integer; equal arguments give equal rows.
        size: number of rows, at least 1.
        split: "train" or "test".

    Returns:
        ``size`` rows; the columns are those of the generator.

    Raises:
        DataError: the name is unknown (the nearest known one is named), ``size`` < 1, or the split is unknown.
    """
    if name not in GENERATORS:
        nearest = difflib.get_close_matches(name, GENERATORS, n=1, cutoff=0.0)[0]
        known = ", ".join(sorted(GENERATORS))
        raise DataError(f"there is no generator {name!r}", remedy=f"did you mean {nearest!r}? known are: {known}")
    if size < 1:
        raise DataError(f"{name} was asked for {size} rows; at least 1 is needed", remedy="set a size of 1 or more")
    if split not in SPLITS:
        raise DataError(f"{name} has no split {split!r}", remedy=f"choose one of: {', '.join(SPLITS)}")
    return GENERATORS[name](seed, size, split)


def load(name: str, split: str, seed: int, size: int | None) -> Found:
    """``size`` made-up records; without a size ``USUAL_SIZE`` of the split.

    Raises:
        DataError: an unknown name or split.
    """
    made = generate(name, seed, size or USUAL_SIZE.get(split, 500), split)
    rows: list[dict[str, object]] = [dict(row) for row in made]
    where = f"generated:{name}[{split}]"
    return Found(where, None, number_rows(rows, where))


USUAL_SIZE = {"train": 2000, "test": 500}
"""How many records are generated where nobody says how many."""
