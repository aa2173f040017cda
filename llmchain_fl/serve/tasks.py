"""Which kinds of task are served, and how: to add one is one line in ``SERVED`` and the function that answers.

The same table serves the project's own routes and the Open Inference Protocol: what a task takes and gives is declared
here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llmchain_fl.core.errors import ConfigError, ModelError
from llmchain_fl.serve import refusals
from llmchain_fl.serve.answer import Answer, Value
from llmchain_fl.serve.by_reading import answered, chances_among, extracted, related, scored, several
from llmchain_fl.serve.encoder import Row
from llmchain_fl.serve.prompts import asked_of, writing_of

if TYPE_CHECKING:
    from llmchain_fl.serve.call import Call
    from llmchain_fl.serve.served import Opened
    from llmchain_fl.serve.service import Service
    from llmchain_fl.serve.settings import ServedAdapter

Ranks = Callable[["Service", "Call", str, Sequence[str], str], Coroutine[Any, Any, list[float]]]


@dataclass(frozen=True)
class ServedTask:
    """How one kind of task is served.

    Attributes:
        takes: what a text is called by the Open Inference Protocol; "": it asks by no text alone.
        gives: name -> data type of this protocol.
        answer: texts -> answers.
        labels: whether answers are labels (``/v1/classify``).
        scores: whether answers are numbers (``/v1/score``).
        writes: whether texts are written (``/v1/completions``).
        asks: whether the task itself makes its prompts (``asking.py``).
        tokens: whether the vectors of tokens are read, by a head over them.
        ranks: (query, candidates, label) -> the score of each candidate (``/v1/rank``); None: it ranks nothing.
    """

    takes: str
    gives: Mapping[str, str]
    answer: Callable[[Service, Call, Sequence[str], int], Coroutine[Any, Any, list[Answer]]]
    labels: bool = False
    scores: bool = False
    writes: bool = False
    asks: bool = False
    tokens: bool = False
    ranks: Ranks | None = None


async def classified(service: Service, call: Call, texts: Sequence[str], top: int) -> list[Answer]:
    """The ``top`` labels of each text; one whose best is below the adapter's threshold abstains."""
    head = call.served.head
    assert head is not None
    found = []
    for vector in await service.vectors(call, texts):
        ranked = tuple(head.best(vector, max(1, top)))
        label, chance = ranked[0]
        values: Mapping[str, Value] = {"label": label, "probability": chance, "abstain": call.unsure(chance)}
        found.append(Answer(label, values, ranked))
    return found


async def written(service: Service, call: Call, texts: Sequence[str], top: int) -> list[Answer]:
    """What is written for each text, without drawing, as ``llmchain-fl predict`` gives it."""
    decoder, bound, found = service.decoder, service.settings.bounds.new_tokens, []
    for prompt in texts:
        writing = writing_of(decoder, asked_of(decoder, call.served, prompt), bound)
        alone = replace(call, gone=threading.Event())  # that of a call is set when its text is written
        text = "".join([piece.text async for piece in service.pieces(alone, writing)]).strip()
        found.append(Answer(text, {"text": text}))
    return found


async def in_pairs(service: Service, call: Call, texts: Sequence[str], top: int) -> list[Answer]:
    """Nothing: a text with others is asked by ``/v1/rank``.

    Raises:
        ApiError: always.
    """
    raise refusals.not_for_this("with one text: ask /v1/rank")


async def by_cosine(service: Service, call: Call, query: str, candidates: Sequence[str], label: str) -> list[float]:
    """How near the vector of each candidate is to that of ``query``."""
    first, *others = await service.vectors(call, [query, *candidates])
    return [float(first @ other) for other in others]


async def by_label(service: Service, call: Call, query: str, candidates: Sequence[str], label: str) -> list[float]:
    """p(label) of ``query`` with each candidate; no label: the first one of the list."""
    served, task, head = call.served, call.served.task, call.served.head
    assert head is not None

    def pair(text: str) -> Row:
        return service.encoder.encode_pair(query, text, served.number, task.pooling, task.max_tokens)

    place = head.labels.index(label) if label else 0
    vectors = await service.computed(call, [partial(pair, text) for text in candidates])
    return [float(head.probabilities(vector)[place]) for vector in vectors]


_LABELS = MappingProxyType({"label": "BYTES", "probability": "FP32", "abstain": "BOOL"})
_SEVERAL = MappingProxyType({"labels": "BYTES", "probabilities": "BYTES"})
_SPANS = MappingProxyType({"spans": "BYTES", "probability": "FP32", "abstain": "BOOL"})
_ANSWER = MappingProxyType({"answer": "BYTES", "probability": "FP32", "abstain": "BOOL", "passage": "BYTES"})
_NUMBER = MappingProxyType({"value": "FP32"})
_TEXT = MappingProxyType({"text": "BYTES"})
_NOTHING: Mapping[str, str] = MappingProxyType({})
_PIECES = ServedTask("question", _ANSWER, answered, tokens=True)
SERVED: Mapping[str, ServedTask] = MappingProxyType(
    {
        "classification": ServedTask("text", _LABELS, classified, labels=True, ranks=by_cosine),
        "relation": ServedTask("text", _LABELS, related, labels=True, tokens=True),
        "multi-label": ServedTask("text", _SEVERAL, several, labels=True, tokens=True),
        "regression": ServedTask("text", _NUMBER, scored, scores=True, tokens=True),
        "token-classification": ServedTask("text", _SPANS, extracted, tokens=True),
        "span-qa": _PIECES,
        "span-qa-or-none": _PIECES,
        "pair-classification": ServedTask("", _NOTHING, in_pairs, ranks=by_label),
        "ranking": ServedTask("", _NOTHING, in_pairs, tokens=True, ranks=chances_among),
        "causal-lm": ServedTask("prompt", _TEXT, written, writes=True),
        "plain-text": ServedTask("text", _TEXT, written, writes=True),
        "dialogue": ServedTask("message", _TEXT, written, writes=True, asks=True),
        "summarisation": ServedTask("document", _TEXT, written, writes=True, asks=True),
        "translation": ServedTask("source", _TEXT, written, writes=True, asks=True),
    }
)
"""Kind of task -> how it is served."""
NOT_SERVED: Mapping[str, str] = MappingProxyType(
    {
        "masked-lm": "it prepares a base: train a further stage on it and serve that, or ask `llmchain-fl predict`",
        "label-words": "ask `llmchain-fl predict`; a classifier that is served stands on an encoder",
    }
)
"""Kind of task that is not served -> what to do."""


def check_kinds(opened: Sequence[Opened]) -> None:
    """Refuse adapters of a kind that is not served.

    Raises:
        ModelError: the first one.
    """
    for one in opened:
        if (kind := one.task.kind) not in SERVED:
            remedy = NOT_SERVED.get(kind, f"served: {', '.join(SERVED)}; for others use `llmchain-fl predict`")
            raise ModelError(f"{one.verified.label} is of the task {kind}, which is not served", remedy=remedy)


def check_thresholds(opened: Sequence[Opened], adapters: Sequence[ServedAdapter]) -> None:
    """Refuse ``abstain_below`` for an adapter no answer of which abstains.

    Args:
        adapters: of the serve file, in the order of ``opened``.

    Raises:
        ConfigError: all of them.
    """
    silent = [
        f"{one.verified.label}: abstain_below = {listed.abstain_below}, but no answer of {one.task.kind} abstains"
        for one, listed in zip(opened, adapters, strict=False)
        if listed.abstain_below and (task := SERVED.get(one.task.kind)) and "abstain" not in task.gives
    ]
    if silent:
        able = ", ".join(kind for kind, task in SERVED.items() if "abstain" in task.gives)
        raise ConfigError(silent, remedy=f"take the line out; kinds of task that abstain: {able}")
