"""Which kinds of task are served, and how: to add one is one line in ``SERVED`` and the function that answers.

The same table serves ``/v1/classify`` and the Open Inference Protocol: what a task takes and gives is declared here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmchain_fl.serve.service import Call, Service

Value = str | float | bool


@dataclass(frozen=True)
class Answer:
    """Of one text.

    Attributes:
        text: the label, or what was written.
        values: by the names of the task's outputs.
        ranked: labels with their probabilities, most probable first.
    """

    text: str
    values: Mapping[str, Value]
    ranked: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class ServedTask:
    """How one kind of task is served.

    Attributes:
        takes: what a text is called.
        gives: name -> data type of the Open Inference Protocol.
        answer: texts -> answers.
        labels: whether answers are labels (``/v1/classify``).
        writes: whether texts are written (``/v1/completions``).
    """

    takes: str
    gives: Mapping[str, str]
    answer: Callable[[Service, Call, Sequence[str], int], Coroutine[Any, Any, list[Answer]]]
    labels: bool = False
    writes: bool = False


async def classified(service: Service, call: Call, texts: Sequence[str], top: int) -> list[Answer]:
    """The ``top`` labels of each text; one whose best is below the adapter's threshold abstains."""
    head = call.served.head
    assert head is not None
    found = []
    for vector in await service.vectors(call, texts):
        ranked = tuple(head.best(vector, max(1, top)))
        label, chance = ranked[0]
        values: Mapping[str, Value] = {"label": label, "probability": chance, "abstain": chance < call.threshold}
        found.append(Answer(label, values, ranked))
    return found


async def written(service: Service, call: Call, texts: Sequence[str], top: int) -> list[Answer]:
    """What follows each prompt, without drawing."""
    found = [await service.text(call, text) for text in texts]
    return [Answer(text, {"text": text}) for text in found]


_LABELS = MappingProxyType({"label": "BYTES", "probability": "FP32", "abstain": "BOOL"})
_TEXT = MappingProxyType({"text": "BYTES"})
SERVED: Mapping[str, ServedTask] = MappingProxyType(
    {
        "classification": ServedTask("text", _LABELS, classified, labels=True),
        "causal-lm": ServedTask("prompt", _TEXT, written, writes=True),
        "plain-text": ServedTask("text", _TEXT, written, writes=True),
    }
)
"""Kind of task -> how it is served."""
