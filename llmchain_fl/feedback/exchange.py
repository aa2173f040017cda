"""Records for annotators, and their decisions back, in the formats of Label Studio and Argilla; no library of theirs.

What goes out names a record by its number alone: no person, no tenant. What comes back is held against the store: a
record that is gone, frozen, or of somebody who has taken consent back is left alone.

=============  ========================================================  =========================================
format         out                                                       back
=============  ========================================================  =========================================
label-studio   a JSON list of tasks: ``data``, with the answer as a      an export (JSON): the last annotation's
               prediction where the task has labels                      ``choices`` or ``text``
argilla        JSONL of records: ``fields``, ``suggestions``             JSONL: ``responses`` of the question
                                                                         ``target``, the last that was submitted
=============  ========================================================  =========================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from llmchain_fl.core.errors import DataError
from llmchain_fl.feedback.record import COLUMNS, Record
from llmchain_fl.feedback.store import Store

MOST_BYTES = 2**28
TARGET = "target"


@dataclass(frozen=True)
class Decision:
    """An annotator's word on one record. ``target``: the right answer; "" where the record is to be rejected."""

    number: int
    target: str


@dataclass(frozen=True)
class Format:
    """One exchange format."""

    out: Callable[[Sequence[Record]], str]
    back: Callable[[str], Iterable[Decision]]


def _label_studio(records: Sequence[Record]) -> str:
    tasks = []
    for one in records:
        data = {"record": one.id, "text": one.told.input, "answered": one.told.output, "told": one.told.kind}
        suggested = one.target(with_up=True) or one.told.output
        value = {"choices": [suggested]} if "label" in COLUMNS.get(one.told.task, ()) else {"text": [suggested]}
        kind = next(iter(value)).replace("text", "textarea")
        result = [{"from_name": TARGET, "to_name": "text", "type": kind, "value": value}]
        tasks.append({"id": one.id, "data": data, "predictions": [{"result": result}]})
    return json.dumps(tasks, ensure_ascii=False, indent=1) + "\n"


def _from_label_studio(text: str) -> Iterable[Decision]:
    for task in _tree(text, list):
        target = ""
        for annotation in task.get("annotations", []):
            if annotation.get("was_cancelled"):
                continue
            target = ""
            for result in annotation.get("result", []):
                value = result.get("value", {})
                choice = value.get("choices") or value.get("text") or [""]
                target = str(choice[0] if isinstance(choice, list) else choice)
        if task.get("annotations"):
            yield Decision(int(task["data"]["record"]), target)


def _argilla(records: Sequence[Record]) -> str:
    rows = []
    for one in records:
        fields = {"text": one.told.input, "answered": one.told.output, "told": one.told.kind}
        suggestion = {"question_name": TARGET, "value": one.target(with_up=True) or one.told.output}
        rows.append({"id": str(one.id), "fields": fields, "suggestions": [suggestion], "metadata": {"record": one.id}})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _from_argilla(text: str) -> Iterable[Decision]:
    for line in text.splitlines():
        record = _tree(line, dict) if line.strip() else {}
        responses = [one for one in record.get("responses", []) if one.get("status", "submitted") != "draft"]
        if responses:
            last = responses[-1]
            value = last.get("value", last.get("values", {}).get(TARGET, {}).get("value", ""))
            yield Decision(int(record["metadata"]["record"]), "" if last.get("status") == "discarded" else str(value))


FORMATS: Mapping[str, Format] = MappingProxyType(
    {"label-studio": Format(_label_studio, _from_label_studio), "argilla": Format(_argilla, _from_argilla)}
)


def _tree(text: str, kind: type) -> Any:
    tree = json.loads(text)
    if not isinstance(tree, kind):
        raise ValueError
    return tree


def take_back(store: Store, text: str, form: str, labels: frozenset[str] = frozenset()) -> tuple[int, int]:
    """Enter annotators' decisions: (records that were decided, records that were left alone).

    Args:
        labels: public; a target that is none of them is left alone. Empty: any.

    Raises:
        DataError: the text is not of this format; nothing was entered.
    """
    try:
        decisions = list(FORMATS[form].back(text))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        decisions = None
    if decisions is None:
        raise DataError(f"it is no {form} export", remedy="export as JSON (Label Studio) or JSONL (Argilla)")
    done = 0
    for one in decisions:
        there = store.records("id = ? AND edition = 0", (one.number,))
        fits = bool(there) and not store.withdrawn(there[0].told.tenant, there[0].told.person)
        fits = fits and (not one.target or not labels or one.target in labels)
        done += fits and store.decide(one.number, bool(one.target), correction=one.target or None)
    return done, len(decisions) - done
