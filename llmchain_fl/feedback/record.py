"""What one person said of one answer, and what of it can be trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

UP, DOWN, CORRECT, CHOOSE = "up", "down", "correct", "choose"
KINDS = (UP, DOWN, CORRECT, CHOOSE)
PENDING, ACCEPTED, REJECTED = "pending", "accepted", "rejected"
STATES = (PENDING, ACCEPTED, REJECTED)
COLUMNS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "classification": ("text", "label"),
        "causal-lm": ("prompt", "answer"),
        "relation": ("text", "label"),
        "multi-label": ("text", "labels"),
        "regression": ("text", "value"),
        "summarisation": ("document", "summary"),
        "translation": ("source", "target"),
        "dialogue": ("messages", "messages"),
    }
)
"""Kind of task -> columns of input and target in an edition. Of others feedback is kept, and trains nothing."""


def row_of(task: str, given: str, target: str) -> dict[str, str]:
    """The columns of a training record; of a conversation the target is the assistant's next turn."""
    asked, answered = COLUMNS[task]
    if asked == answered:
        turns = [*json.loads(given), {"role": "assistant", "content": target}]
        return {asked: json.dumps(turns, ensure_ascii=False)}
    return {asked: given, answered: target}


@dataclass(frozen=True)
class Told:
    """As it comes in.

    Attributes:
        tenant, person: whose; the person as ``same_person`` spells it.
        model, adapter: label and address of what answered.
        task: kind of task.
        request: id of the request.
        input, output: what was asked and answered.
        kind: ``up``, ``down``, ``correct``, ``choose``.
        correction: the right answer, with the last two.
        at: seconds since 1970.
    """

    tenant: str
    person: str
    model: str
    adapter: str
    task: str
    request: str
    input: str
    output: str
    kind: str
    correction: str
    at: float


@dataclass(frozen=True)
class Record:
    """As it is kept. ``edition``: the frozen edition that holds it; 0: none."""

    id: int
    told: Told
    state: str
    edition: int

    @property
    def order(self) -> tuple[float, str, str]:
        """Of a person's own records: by time; nothing of other people's is in it, as a running number would be."""
        return self.told.at, self.told.request, self.told.input

    def target(self, with_up: bool = False) -> str:
        """What is trained for this input; "" where nothing is.

        ==========================  ======================================
        kind                        target
        ==========================  ======================================
        ``correct``, ``choose``     the correction
        ``up``                      the answer, where ``with_up``, else ""
        ``down``                    "": it says what is wrong, not what is right
        ==========================  ======================================
        """
        if self.told.kind in (CORRECT, CHOOSE):
            return self.told.correction
        return self.told.output if self.told.kind == UP and with_up else ""
