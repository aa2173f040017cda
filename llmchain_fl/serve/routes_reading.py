"""``/v1/extract``, ``/v1/answer``, ``/v1/rank``: what an encoder finds in texts, in passages, among candidates.

==============================================  ============================================================
case                                            result
==============================================  ============================================================
a model of another kind of task                 400
a question without ``context``, no passages     400: the serve file names no public passages
no passage has a word of the question           it abstains, and shows no passage
the answer is below ``abstain_below``           it abstains, shows the passage, and not the answer
the model itself says that none is there        the same; the probability is 0
``label`` that is none of the model's           400; only a model over pairs has one
``ranking``: candidates that are no record      400: fewer than two, one twice, an empty one
==============================================  ============================================================
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from llmchain_fl.serve import refusals
from llmchain_fl.serve.attend import attended, caller_of
from llmchain_fl.serve.bodies import AnswerBody, Inputs, RankBody
from llmchain_fl.serve.by_reading import answers_in
from llmchain_fl.serve.passages import Passage
from llmchain_fl.serve.receipts import Receipts
from llmchain_fl.serve.service import Service
from llmchain_fl.serve.tasks import SERVED, by_label

EXTRACT, ANSWER, RANK = "/v1/extract", "/v1/answer", "/v1/rank"
GIVEN = "context"
"""The id of a passage that came with the question."""


def reading_routes(service: Service, receipts: Receipts | None) -> APIRouter:
    """The routes over ``service``."""
    router = APIRouter()

    @router.post(EXTRACT)
    async def extract(request: Request, body: Inputs) -> dict[str, Any]:
        """The names in each text: entities, slots, personal data."""
        texts = body.texts()
        service.check_texts(texts, "input")
        call = service.call(caller_of(request), body.model, len(texts))
        if call.task is not SERVED["token-classification"]:
            raise refusals.not_for_this(EXTRACT)
        answers = await attended(request, call, call.task.answer(service, call, texts, 1))
        results = [{"index": place, **answer.shown} for place, answer in enumerate(answers)]
        return {"id": call.request, "model": call.served.label, "adapter": call.served.address, "results": results}

    @router.post(ANSWER)
    async def answer(request: Request, body: AnswerBody) -> dict[str, Any]:
        """The piece of the given text, or of a public passage, that answers a question; or that there is none."""
        service.check_texts([text for text in (body.question, body.context) if text is not None], "question")
        held = _passages(service, body)
        call = service.call(caller_of(request), body.model, max(1, len(held)))
        if call.task is not SERVED["span-qa"]:
            raise refusals.not_for_this(ANSWER)
        ((piece, passage),) = await attended(request, call, answers_in(service, call, [(body.question, held)]))
        unsure = piece is None or call.unsure(piece.chance)
        told: dict[str, Any] = {"answer": None, "abstain": unsure, "probability": piece.chance if piece else 0.0}
        told["passage"] = None if passage is None else {"id": passage.id, "text": passage.text}
        if piece is not None and not unsure:
            told |= {"answer": piece.text, "start": piece.start, "end": piece.end}
        if receipts is not None:
            told["receipt"] = receipts.receipt(call, body.question, told["answer"] or "")
        service.metrics.count("abstained_total", int(unsure))
        return {"id": call.request, "model": call.served.label, "adapter": call.served.address, **told}

    @router.post(RANK)
    async def rank(request: Request, body: RankBody) -> dict[str, Any]:
        """The candidates by how well they fit the query, the best first; the earlier of equals."""
        service.check_texts([body.query, *body.candidates], "candidates")
        call = service.call(caller_of(request), body.model, len(body.candidates))
        ranks, task = call.task.ranks, call.served.task
        if ranks is None:
            raise refusals.not_for_this(RANK)
        if body.label and (ranks is not by_label or body.label not in dict(task.labels)):
            raise refusals.bad("label", "is none of this model's")
        scores = await attended(request, call, ranks(service, call, body.query, body.candidates, body.label))
        order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))[: body.top or len(scores)]
        results = [{"index": place, "score": scores[place]} for place in order]
        return {"id": call.request, "model": call.served.label, "adapter": call.served.address, "results": results}

    return router


def _passages(service: Service, body: AnswerBody) -> list[Passage]:
    """Where the answer may stand.

    Raises:
        ApiError: nowhere.
    """
    if body.context is not None:
        return [Passage(GIVEN, body.context)]
    if service.passages is None:
        raise refusals.bad("context", "give the text that holds the answer: this server has no passages")
    return [passage for passage, _ in service.passages.best(body.question, body.passages)]
