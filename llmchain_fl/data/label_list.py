"""The public label list as a run's configuration names it: a list, a table, a file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmchain_fl.core.data.rows import HALF_PAIR
from llmchain_fl.core.errors import DataError
from llmchain_fl.data.json_file import read_text

GENERATED = "generated:bank-messages"
"""The one generated source with labels; its list can be asked for by its name."""


def read_label_list(spec: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Label -> label text, in the order given (the order numbers the labels).

    ===========================  =====================================================================
    spec                         holds
    ===========================  =====================================================================
    a list                       the labels themselves
    a table                      label -> label text
    a .json file, a list         ["card_arrival", "lost_card"]
    a .json file, an object      {"card_arrival": "when will my card come"}
    any other file               one label per line, or label, tab, label text; blank lines are skipped
    generated:bank-messages      the labels of the generated records
    ===========================  =====================================================================

    A label without a text (or with a blank one) gets its own name with "_" and "-" as spaces.

    Raises:
        DataError: a missing file, bad JSON, no label, an empty label, a label that stands there twice.
    """
    where = spec if isinstance(spec, str) else "the label list"
    labels: dict[str, str] = {}
    for number, (label, text) in enumerate(_pairs(spec, where), start=1):
        if not label.strip():
            raise DataError(f"label {number} is empty", where=where, remedy="name it, or leave it out")
        if label in labels:
            first = list(labels).index(label) + 1
            raise DataError(f"label {number} is the same as label {first}", where=where, remedy="leave one out")
        if HALF_PAIR.search(label + text):
            raise DataError(f"label {number} is no text", where=where, remedy="write it as UTF-8")
        labels[label] = text.strip() or label.replace("_", " ").replace("-", " ").strip() or label
    if not labels:
        raise DataError("holds no label", where=where, remedy="give one label per line, or a JSON list of labels")
    return labels


def _pairs(spec: str | Sequence[str] | Mapping[str, str], where: str) -> list[tuple[str, str]]:
    if isinstance(spec, Mapping):
        return list(spec.items())
    if not isinstance(spec, str):
        return [(label, "") for label in spec]
    if spec == GENERATED:
        from llmchain_fl.data.generated import label_texts

        return list(label_texts.items())
    text = read_text(Path(spec))
    return _json_pairs(text, where) if spec.lower().endswith(".json") else _line_pairs(text)


def _line_pairs(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    return [(label.strip(), label_text) for label, _, label_text in (line.partition("\t") for line in lines)]


def _json_pairs(text: str, where: str) -> list[tuple[str, str]]:
    value: object = None
    with contextlib.suppress(ValueError, RecursionError, MemoryError):
        value = json.loads(text, object_pairs_hook=list)  # a list of pairs: a dict would hide a label given twice
    if not isinstance(value, list):
        raise DataError("is not a JSON list or object", where=where, remedy='write ["a", "b"] or {"a": "text of a"}')
    pairs = [(item, "") if isinstance(item, str) else item for item in value]
    for number, pair in enumerate(pairs, start=1):
        if not (isinstance(pair, tuple) and all(isinstance(part, str) for part in pair)):
            raise DataError(f"label {number} is no text", where=where, remedy="put labels and their texts in quotes")
    return pairs
