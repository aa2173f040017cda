"""Answers of the tasks that read the vectors of tokens (``reading.py``): what ``core/tasks`` makes of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from llmchain_fl.core.tasks.base import Examples
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.serve import refusals
from llmchain_fl.serve.answer import Answer, Value
from llmchain_fl.serve.encoder import TOKENS, Row
from llmchain_fl.serve.passages import Passage
from llmchain_fl.serve.reading import Piece, words_row

if TYPE_CHECKING:
    from llmchain_fl.serve.call import Call
    from llmchain_fl.serve.service import Service

Record = Mapping[str, str]


async def extracted(service: Service, call: Call, texts: Sequence[str], top: int) -> list[Answer]:
    """The names in each text, as JSON; where the least sure tag is below the threshold it abstains."""
    reading = call.served.reading
    assert reading is not None
    read = await _read(service, call, [words_row(text) for text in texts])

    def decode() -> list[Answer]:
        found = []
        for text, (examples, hidden) in zip(texts, read, strict=True):
            spans, chance = reading.spans(text, examples, hidden)
            lists = {"spans": [asdict(span) for span in spans]}
            told = json.dumps(lists["spans"], ensure_ascii=False)
            values: dict[str, Value] = {"spans": told, "probability": chance, "abstain": call.unsure(chance)}
            found.append(Answer(told, values, lists=lists))
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


async def related(service: Service, call: Call, texts: Sequence[str], top: int) -> list[Answer]:
    """The ``top`` labels of each text with two marked things; one whose best is below the threshold abstains."""
    records = [{"text": text} for text in texts]
    found = []
    for ranked in await _by_task(service, call, records, "input", lambda task, row: task.answer([row], max(1, top))[0]):
        label, chance = ranked[0]
        values: Mapping[str, Value] = {"label": label, "probability": chance, "abstain": call.unsure(chance)}
        found.append(Answer(label, values, tuple(ranked)))
    return found


async def several(service: Service, call: Call, texts: Sequence[str], top: int) -> list[Answer]:
    """The labels of each text above 1/2; ranked stand all of them. ``top`` says nothing: each is judged by itself."""

    def chances(task: Any, row: Record) -> list[tuple[str, float]]:
        told = 1 / (1 + np.exp(-task.chances(task.encode([row]))[:, 0]))
        return [(task.labels[int(k)], float(told[k])) for k in np.argsort(-told, kind="stable")]

    found = []
    for ranked in await _by_task(service, call, [{"text": text} for text in texts], "input", chances):
        labels = [label for label, chance in ranked if chance > 0.5]
        told = json.dumps(labels, ensure_ascii=False)
        values = {"labels": told, "probabilities": json.dumps(dict(ranked), ensure_ascii=False)}
        found.append(Answer(told, values, tuple(ranked), {"labels": labels, "probabilities": dict(ranked)}))
    return found


async def scored(service: Service, call: Call, texts: Sequence[str], top: int) -> list[Answer]:
    """The number for each text."""
    return await numbers(service, call, [{"text": text} for text in texts])


async def numbers(service: Service, call: Call, records: Sequence[Record]) -> list[Answer]:
    """The number for each record: a text, or two."""
    told = await _by_task(service, call, records, "input", lambda task, row: task.answer([row])[0][0][0])
    return [Answer(text, {"value": float(text)}) for text in told]


async def chances_among(service: Service, call: Call, query: str, candidates: Sequence[str], label: str) -> list[float]:
    """The chance of each candidate among all of the request; of those that nothing was left to read for, 0."""
    record = {"query": query, "candidates": json.dumps(list(candidates), ensure_ascii=False)}
    ask = partial(_all_of, count=len(candidates))
    (told,) = await _by_task(service, call, [record], "candidates", ask)
    chance = dict(told)
    return [chance[text] for text in candidates]


def _all_of(task: Any, row: Record, count: int) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = task.answer([row], count)[0]
    return found


async def _by_task(
    service: Service, call: Call, records: Sequence[Record], param: str, ask: Callable[[Any, Record], Any]
) -> list[Any]:
    """What ``ask`` finds of each record, by the adapter's task of ``core`` whose passes are done.

    Raises:
        ApiError: 400 what is no record of this kind of task; or what the service refuses.
    """
    reading, spec = call.served.reading, call.served.task
    assert reading is not None
    kind, names = task_kind(spec.kind), dict(spec.labels)
    if fault := next((fault for row in records if (fault := kind.fault_of(row, names))), ""):
        raise refusals.bad(param, fault)
    read = await _read(service, call, records)

    def answer(row: Record, rows: Examples, hidden: Sequence[Any]) -> Any:
        return reading.found(rows, hidden, lambda task: ask(task, row))

    pairs = zip(records, read, strict=True)
    return await asyncio.to_thread(lambda: [answer(row, *passes) for row, passes in pairs])


async def _read(service: Service, call: Call, records: Sequence[Record]) -> list[tuple[Examples, Sequence[Any]]]:
    """Of each record: its rows, and the vectors of their tokens."""
    reading = call.served.reading
    assert reading is not None
    made = await asyncio.to_thread(lambda: [reading.encode(record) for record in records])
    rows = [Row(ids, call.served.number, TOKENS) for one in made for ids in one.ids]
    hidden = iter(await service.computed(call, [partial(_same, row) for row in rows]))
    return [(one, [next(hidden) for _ in one.ids]) for one in made]


def _same(row: Row) -> Row:
    return row
