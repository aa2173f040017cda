"""Which of eight intents a synthetic message is about: records for a task of kind ``ranking``.

The candidates are the texts of eight labels, the right one (grade 1) and seven drawn from the public list;
persons, branches and noise are those of ``bank_messages``.
"""

from __future__ import annotations

import json
import random

from llmchain_fl.data.generated.bank_messages import bank_messages
from llmchain_fl.data.generated.bank_templates import LABELS, label_texts

CANDIDATES = 8


def bank_choices(seed: int, size: int, split: str) -> list[dict[str, str]]:
    """Rows with ``query``, ``candidates``, ``grades``, ``label``, ``stage``, ``branch``, ``person``.

    Args:
        seed: any integer.
        size: number of rows, at least 1 (checked by ``generate``).
        split: "train" or "test"; the two never share a template.
    """
    draw, texts = random.Random(f"choices/{seed}/{split}"), label_texts
    rows = []
    for row in bank_messages(seed, size, split):
        names = [row["label"], *draw.sample([name for name in LABELS if name != row["label"]], CANDIDATES - 1)]
        draw.shuffle(names)
        cells = {"query": row["text"], "candidates": json.dumps([texts[name] for name in names])}
        grades = json.dumps([int(name == row["label"]) for name in names])
        rows.append({**cells, "grades": grades, **{key: row[key] for key in ("label", "stage", "branch", "person")}})
    return rows
