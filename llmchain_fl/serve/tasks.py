"""Which kinds of task are served, and how: to add one is one line in ``SERVED`` and the function that answers.

The same table serves the project's own routes and the Open Inference Protocol: what a task takes and gives is declared
here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.serve import refusals
from llmchain_fl.serve.encoder import TOKENS, Row
from llmchain_fl.serve.passages import Passage
from llmchain_fl.serve.prompts import Writing, check_room, prompt_ids
from llmchain_fl.serve.reading import Piece, words_row

if TYPE_CHECKING:
    from llmchain_fl.serve.call import Call
    from llmchain_fl.serve.service import Service

Value = str | float | bool
USUAL_TOKENS = 48
"""Written where a request says nothing of it, as by ``llmchain-fl predict``."""


@dataclass(frozen=True)
class Answer:
    """Of one text.

    Attributes:
        text: the label, or what was written or found.
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
        tokens: whether the vectors of tokens are read, by a head over them.
    """

    takes: str
    gives: Mapping[str, str]
    answer: Callable[[Service, Call, Sequence[str], int], Coroutine[Any, Any, list[Answer]]]
    labels: bool = False
    writes: bool = False
    tokens: bool = False


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
    """What follows each prompt, without drawing, as ``llmchain-fl predict`` gives it."""
    decoder, most = service.decoder, min(USUAL_TOKENS, service.settings.bounds.new_tokens)
    found = []
    for prompt in texts:
        ids = prompt_ids(decoder.reader, prompt)
        check_room(decoder, ids, most)
        text = "".join([piece.text async for piece in service.pieces(call, Writing(ids, most))]).strip()
        found.append(Answer(text, {"text": text}))
    return found


async def extracted(service: Service, call: Call, texts: Sequence[str], top: int) -> list[Answer]:
    """The names in each text, as JSON; where the least sure tag is below the threshold it abstains."""
    reading = call.served.reading
    assert reading is not None
    read = await _read(service, call, [words_row(text) for text in texts])

    def decode() -> list[Answer]:
        found = []
        for text, (examples, hidden) in zip(texts, read, strict=True):
            spans, chance = reading.spans(text, examples, hidden)
            told = json.dumps([asdict(span) for span in spans], ensure_ascii=False)
            found.append(Answer(told, {"spans": told, "probability": chance, "abstain": call.unsure(chance)}))
        return found

    return await asyncio.to_thread(decode)


async def answered(service: Service, call: Call, texts: Sequence[str], top: int) -> list[Answer]:
    """The answer to each question from the public passages, with the passage it stands in.

    Raises:
        ApiError: this server has no passages.
    """
    if service.passages is None:
        raise refusals.bad("inputs", "this server has no passages: ask /v1/answer with a context")
    held = [service.passages.best(text, max(1, service.settings.passages.shown)) for text in texts]
    asked = [(text, [passage for passage, _ in one]) for text, one in zip(texts, held, strict=True)]
    found = []
    for piece, passage in await answers_in(service, call, asked):
        unsure = piece is None or call.unsure(piece.chance)
        text = "" if piece is None or unsure else piece.text
        chance = piece.chance if piece else 0.0
        values: dict[str, Value] = {"answer": text, "probability": chance, "abstain": unsure}
        found.append(Answer(text, {**values, "passage": passage.text if passage else ""}))
    return found


async def answers_in(
    service: Service, call: Call, asked: Sequence[tuple[str, Sequence[Passage]]]
) -> list[tuple[Piece | None, Passage | None]]:
    """(question, passages) -> the piece with the largest s + e over its passages, and which it stands in.

    Of equals the earlier one. Without a passage there is no piece; where no passage holds one, the first is shown.
    """
    reading = call.served.reading
    assert reading is not None
    records = [{"question": question, "context": one.text} for question, held in asked for one in held]
    read = await _read(service, call, records) if records else []

    def decode() -> list[tuple[Piece | None, Passage | None]]:
        pieces, found = iter(read), list[tuple[Piece | None, Passage | None]]()
        for _, held in asked:
            best: tuple[Piece | None, Passage | None] = None, held[0] if held else None
            for passage in held:
                piece = reading.piece(*next(pieces))
                if piece is not None and (best[0] is None or piece.score > best[0].score):
                    best = piece, passage
            found.append(best)
        return found

    return await asyncio.to_thread(decode)


async def _read(
    service: Service, call: Call, records: Sequence[Mapping[str, str]]
) -> list[tuple[Examples, Sequence[Any]]]:
    """Of each record: its rows, and the vectors of their tokens."""
    reading = call.served.reading
    assert reading is not None
    made = await asyncio.to_thread(lambda: [reading.encode(record) for record in records])
    rows = [Row(ids, call.served.number, TOKENS) for one in made for ids in one.ids]
    hidden = iter(await service.computed(call, [partial(_same, row) for row in rows]))
    return [(one, [next(hidden) for _ in one.ids]) for one in made]


def _same(row: Row) -> Row:
    return row


async def in_pairs(service: Service, call: Call, texts: Sequence[str], top: int) -> list[Answer]:
    """Nothing: a pair is asked by ``/v1/rank``.

    Raises:
        ApiError: always.
    """
    raise refusals.not_for_this("with one text: ask /v1/rank")


async def ranked(service: Service, call: Call, query: str, candidates: Sequence[str], label: str) -> list[float]:
    """How well each candidate fits ``query``: p(label) of the pair by an adapter over pairs, else the cosine."""
    served, task = call.served, call.served.task
    if task.kind != PAIRS:
        first, *others = await service.vectors(call, [query, *candidates])
        return [float(first @ other) for other in others]
    head = served.head
    assert head is not None

    def pair(text: str) -> Row:
        return service.encoder.encode_pair(query, text, served.number, task.pooling, task.max_tokens)

    place = head.labels.index(label) if label else 0
    vectors = await service.computed(call, [partial(pair, text) for text in candidates])
    return [float(head.probabilities(vector)[place]) for vector in vectors]


_LABELS = MappingProxyType({"label": "BYTES", "probability": "FP32", "abstain": "BOOL"})
_SPANS = MappingProxyType({"spans": "BYTES", "probability": "FP32", "abstain": "BOOL"})
_ANSWER = MappingProxyType({"answer": "BYTES", "probability": "FP32", "abstain": "BOOL", "passage": "BYTES"})
_TEXT = MappingProxyType({"text": "BYTES"})
PAIRS = "pair-classification"
SERVED: Mapping[str, ServedTask] = MappingProxyType(
    {
        "classification": ServedTask("text", _LABELS, classified, labels=True),
        "token-classification": ServedTask("text", _SPANS, extracted, tokens=True),
        "span-qa": ServedTask("question", _ANSWER, answered, tokens=True),
        PAIRS: ServedTask("text", _LABELS, in_pairs),
        "causal-lm": ServedTask("prompt", _TEXT, written, writes=True),
        "plain-text": ServedTask("text", _TEXT, written, writes=True),
    }
)
"""Kind of task -> how it is served."""
