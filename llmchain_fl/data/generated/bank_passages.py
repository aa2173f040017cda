"""Public passages of the made-up bank: one for each answer of its clerks that holds for everybody, under its intent.

What a service shows where it is not sure of an intent. Rows ``{"id", "text", "label"}``; the label says of which intent
a passage is, so that what a search finds can be judged.
"""

from __future__ import annotations

import re

from llmchain_fl.data.generated.bank_templates import label_texts, phrases

_SLOT = re.compile(r"\{\w+\}")


def bank_passages() -> list[dict[str, str]]:
    """All of them, in the order of the labels; an answer that echoes a customer's words is none of them."""
    known = phrases()
    rows = []
    for label, answers in known.answers.items():
        for place, answer in enumerate(a for a in answers if not _SLOT.search(a)):
            text = f"{label_texts[label].capitalize()}: {answer}"
            rows.append({"id": f"{label}-{place + 1}", "text": text, "label": label})
    return rows
