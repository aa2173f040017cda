"""A request is worked on as long as somebody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from llmchain_fl.serve import refusals
from llmchain_fl.serve.call import Call
from llmchain_fl.serve.tenants import Caller
from llmchain_fl.serve.tickets import Gone

_T = TypeVar("_T")


def caller_of(request: Request) -> Caller:
    """Who asks, as the gate has found out."""
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller


async def attended(request: Request, call: Call, work: Coroutine[Any, Any, _T]) -> _T:
    """``work``, given up when the client is gone.

    Raises:
        ApiError: 499: it is gone; or what ``work`` raises.
    """
    working, watching = asyncio.ensure_future(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        call.gone.set()
        raise refusals.refusal(Gone())
    finally:
        call.gone.set()
        for task in (working, watching):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await watching


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
