"""Synthetic pairs for recommendation: a customer's message, a topic of the bank's public catalogue, whether it fits.

Every message of ``bank_messages`` stands beside one topic: in half of the rows its own, else one that is drawn from the
public catalogue alone, never from what other customers wrote. Topics are the texts of the labels.
"""

from __future__ import annotations

import random

from llmchain_fl.data.generated.bank_messages import draw_messages
from llmchain_fl.data.generated.bank_templates import LABELS, label_texts

FITS, OTHER = "fits", "other"


def bank_pairs(seed: int, size: int, split: str) -> list[dict[str, str]]:
    """Pairs for ranking.

    Args:
        seed: any integer.
        size: number of rows, at least 1 (checked by ``generate``).
        split: "train" or "test"; the two never share a template.

    Returns:
        ``size`` rows ``{"text", "text2", "label", "stage", "branch", "person"}`` in random order; the label is ``fits``
        or ``other``.
    """
    rng, rows = random.Random(f"bank-pairs/{seed}/{split}"), list[dict[str, str]]()
    for m in draw_messages(rng, f"c{seed}-{split}", size, split):
        fits = rng.random() < 0.5
        topic = m.label if fits else rng.choice([label for label in LABELS if label != m.label])
        cells = {"text": m.text, "text2": label_texts[topic], "label": FITS if fits else OTHER}
        rows.append({**cells, "stage": m.stage, "branch": m.branch, "person": m.person})
    return rows
