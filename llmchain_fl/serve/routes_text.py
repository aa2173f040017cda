"""``/v1/completions`` and ``/v1/chat/completions``: what a causal language model writes, whole or as it comes."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from llmchain_fl.serve import refusals
from llmchain_fl.serve.asking import Asked
from llmchain_fl.serve.attend import attended, caller_of
from llmchain_fl.serve.bodies import ChatBody, CompletionBody, WriteBody
from llmchain_fl.serve.call import Call
from llmchain_fl.serve.decoder import Piece
from llmchain_fl.serve.prompts import Writing, asked_of, replied_of, writing_of
from llmchain_fl.serve.receipts import Receipts
from llmchain_fl.serve.service import Service

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


@dataclass(frozen=True)
class Shape:
    """How one of the two routes is shaped. ``prefix``: of ids; ``whole``, ``part``: OpenAI's names of the objects."""

    prefix: str
    whole: str
    part: str
    chat: bool

    def choice(self, text: str, reason: str | None) -> dict[str, Any]:
        """Of a whole answer."""
        told = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {"index": 0, **told, "finish_reason": reason, "logprobs": None}

    def delta(self, text: str, reason: str | None, first: bool) -> dict[str, Any]:
        """Of a part."""
        if not self.chat:
            return {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
        told = {"role": "assistant"} if first else {}
        return {"index": 0, "delta": {**told, "content": text}, "finish_reason": reason, "logprobs": None}


SHAPES = {
    COMPLETIONS: Shape("cmpl", "text_completion", "text_completion", chat=False),
    CHAT: Shape("chatcmpl", "chat.completion", "chat.completion.chunk", chat=True),
}


@dataclass(frozen=True)
class Answering:
    """One request in one of the two shapes. ``given``: its texts as one, for the receipt."""

    service: Service
    receipts: Receipts | None
    call: Call
    writing: Writing
    shape: Shape
    given: str

    async def whole(self) -> dict[str, Any]:
        """The answer at once."""
        text, last = "", Piece("", "", 0)
        async for piece in self.service.pieces(self.call, self.writing):
            text, last = text + piece.text, piece
        choice = self.shape.choice(text, last.reason)
        if self.receipts is not None:
            choice["receipt"] = self.receipts.receipt(self.call, self.given, text)
        return {**self._head(self.shape.whole), "choices": [choice], "usage": self._usage(last.tokens)}

    async def streamed(self, usage: bool) -> Response:
        """The answer as it comes; what is refused before its first piece is refused by its status.

        Raises:
            ApiError: it is.
        """
        pieces = self.service.pieces(self.call, self.writing)
        first = await anext(pieces)
        return StreamingResponse(self._parts(first, pieces, usage), media_type="text/event-stream")

    async def _parts(self, first: Piece, more: AsyncIterator[Piece], usage: bool) -> AsyncIterator[str]:
        """Server-sent events; what breaks off says so in an event of its own."""
        text, tokens = "", 0
        try:
            async for piece in _behind(first, more):
                text, tokens = text + piece.text, piece.tokens
                choice = self.shape.delta(piece.text, piece.reason or None, piece is first)
                if piece.reason and self.receipts is not None:
                    choice["receipt"] = self.receipts.receipt(self.call, self.given, text)
                yield _event({**self._head(self.shape.part), "choices": [choice]})
            if usage:
                yield _event({**self._head(self.shape.part), "choices": [], "usage": self._usage(tokens)})
            yield "data: [DONE]\n\n"
        except refusals.ApiError as error:
            yield _event(error.body())
        finally:
            self.call.gone.set()

    def _head(self, name: str) -> dict[str, Any]:
        told = {"id": f"{self.shape.prefix}-{self.call.request}", "object": name, "created": int(time.time())}
        told |= {"model": self.call.served.label, "adapter": self.call.served.address}
        return {**told, "request_id": self.call.request}

    def _usage(self, tokens: int) -> dict[str, int]:
        prompt = len(self.writing.ids)
        return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def text_routes(service: Service, receipts: Receipts | None) -> APIRouter:
    """The routes over ``service``."""
    router = APIRouter()

    async def answer(request: Request, body: WriteBody, route: str, asked: Asked, call: Call) -> Response:
        writing = _writing(service, body, asked)
        told = Answering(service, receipts, call, writing, SHAPES[route], asked.given or body.texts()[0])
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            return await told.streamed(usage)
        return JSONResponse(await attended(request, call, told.whole()))

    def call_for(request: Request, body: WriteBody, route: str) -> Call:
        service.check_texts(body.texts(), "messages" if SHAPES[route].chat else "prompt")
        call = service.call(caller_of(request), body.model, 1)
        if not call.task.writes:
            raise refusals.not_for_this(route)
        return call

    @router.post(COMPLETIONS)
    async def completions(request: Request, body: CompletionBody) -> Response:
        """What follows a prompt."""
        call = call_for(request, body, COMPLETIONS)
        return await answer(request, body, COMPLETIONS, asked_of(service.decoder, call.served, body.prompt), call)

    @router.post(CHAT)
    async def chat(request: Request, body: ChatBody) -> Response:
        """What the assistant says next."""
        call = call_for(request, body, CHAT)
        turns = [(message.role, message.content) for message in body.messages]
        return await answer(request, body, CHAT, replied_of(service.decoder, call.served, turns), call)

    return router


def _writing(service: Service, body: WriteBody, asked: Asked) -> Writing:
    bound, most = service.settings.bounds.new_tokens, body.most()
    if most is not None and most > bound:
        raise refusals.bad("max_tokens", f"at most {bound}")
    drawn = {"temperature": body.temperature, "top_p": body.top_p, "seed": body.seed, "stop": body.stops()}
    return writing_of(service.decoder, asked, bound, most, **drawn)


async def _behind(first: Piece, more: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    yield first
    async for piece in more:
        yield piece


def _event(told: dict[str, Any]) -> str:
    return f"data: {json.dumps(told)}\n\n"
