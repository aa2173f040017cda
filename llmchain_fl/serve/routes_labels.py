"""``/v1/classify``, ``/v1/score``, ``/v1/embeddings``: what an encoder answers; ``/v1/models``: by which adapters."""

from __future__ import annotations

import base64
import struct
from typing import Any

from fastapi import APIRouter, Request

from llmchain_fl.serve import refusals
from llmchain_fl.serve.attend import attended, caller_of
from llmchain_fl.serve.bodies import ClassifyBody, EmbeddingsBody, ScoreBody
from llmchain_fl.serve.by_reading import numbers
from llmchain_fl.serve.passages import Passages
from llmchain_fl.serve.receipts import Receipts
from llmchain_fl.serve.service import Service

CLASSIFY, SCORE, EMBEDDINGS, MODELS = "/v1/classify", "/v1/score", "/v1/embeddings", "/v1/models"
SHOWN = 3
"""Labels where a request says nothing."""


def label_routes(service: Service, receipts: Receipts | None) -> APIRouter:
    """The routes over ``service``."""
    router = APIRouter()

    @router.get(MODELS)
    async def models(request: Request) -> dict[str, Any]:
        """The adapters that this token may use, the default first."""
        own = service.tenants.adapters(caller_of(request).tenant)
        return {"object": "list", "data": [_model(one.label, one.address, one.parent, one.task.kind) for one in own]}

    @router.post(CLASSIFY)
    async def classify(request: Request, body: ClassifyBody) -> dict[str, Any]:
        """The most probable labels of each text; where it may have several, those that it has, and all by chance."""
        texts = body.texts()
        service.check_texts(texts, "input")
        call = service.call(caller_of(request), body.model, len(texts))
        if not call.task.labels:
            raise refusals.not_for_this(CLASSIFY)
        answers = await attended(request, call, call.task.answer(service, call, texts, body.top or SHOWN))
        differ = await service.arms.differing(service, call, texts, answers) if service.arms else []
        results = []
        for place, (text, answer) in enumerate(zip(texts, answers, strict=True)):
            told: dict[str, Any] = {"index": place, **answer.shown}
            ranked = answer.ranked[: body.top or len(answer.ranked)]
            told["top"] = [{"label": label, "probability": chance} for label, chance in ranked]
            if place < len(differ) and differ[place]:
                told["ask"] = True
            if receipts is not None:
                told["receipt"] = receipts.receipt(call, text, answer.text)
            if service.passages is not None and answer.values.get("abstain"):
                told["passages"] = _found(service.passages, text, service.settings.passages.shown)
            results.append(told)
        service.metrics.count("abstained_total", sum(bool(answer.values.get("abstain")) for answer in answers))
        return {"id": call.request, "model": call.served.label, "adapter": call.served.address, "results": results}

    @router.post(SCORE)
    async def score(request: Request, body: ScoreBody) -> dict[str, Any]:
        """The number for each text, or for each pair of texts."""
        records = body.records()
        for column, param in (("text", "input"), ("text2", "second")):
            service.check_texts([row[column] for row in records if column in row] or ["-"], param)
        call = service.call(caller_of(request), body.model, len(records))
        if not call.task.scores:
            raise refusals.not_for_this(SCORE)
        results: list[dict[str, Any]] = []
        for place, answer in enumerate(await attended(request, call, numbers(service, call, records))):
            told = {"index": place, **answer.shown}
            if receipts is not None and "text2" not in records[place]:
                told["receipt"] = receipts.receipt(call, records[place]["text"], answer.text)
            results.append(told)
        return {"id": call.request, "model": call.served.label, "adapter": call.served.address, "results": results}

    @router.post(EMBEDDINGS)
    async def embeddings(request: Request, body: EmbeddingsBody) -> dict[str, Any]:
        """The vector of each text at unit length, by the adapter; shaped as OpenAI's."""
        texts = body.texts()
        service.check_texts(texts, "input")
        call = service.call(caller_of(request), body.model, len(texts))
        if service.engine.encoder is None:
            raise refusals.not_for_this(EMBEDDINGS)
        vectors = await attended(request, call, service.vectors(call, texts))
        data = [
            {"object": "embedding", "index": place, "embedding": _shown(vector.tolist(), body.encoding_format)}
            for place, vector in enumerate(vectors)
        ]
        tokens = {"prompt_tokens": sum(call.tokens), "total_tokens": sum(call.tokens)}
        return {"object": "list", "model": call.served.label, "data": data, "usage": tokens}

    return router


def _model(label: str, address: str, parent: str, kind: str) -> dict[str, Any]:
    told = {"id": label, "object": "model", "created": 0, "owned_by": "llmchain-fl"}
    return {**told, "adapter": address, "parent": parent, "task": kind}


def _found(passages: Passages, text: str, count: int) -> list[dict[str, Any]]:
    """Where an answer is not sure: what was written for everybody, the best first."""
    return [{"id": one.id, "text": one.text, "score": score} for one, score in passages.best(text, count)]


def _shown(vector: list[float], encoding: str) -> list[float] | str:
    """Numbers, or little-endian float32 in base64."""
    if encoding == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
