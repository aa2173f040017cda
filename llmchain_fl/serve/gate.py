"""In front of every route: who asks, how large and how slow a body may be, what is counted and logged.

Plain ASGI. The token is looked at before a byte of the body is read. A log line holds words of this program and numbers
alone: the route's own pattern, never the path that was sent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from llmchain_fl.serve import refusals
from llmchain_fl.serve.service import Service

log = logging.getLogger("llmchain_fl.serve.access")
faults = logging.getLogger("llmchain_fl.serve")
OPEN = frozenset({"/health", "/ready", "/metrics", "/openapi.json", "/v2", "/v2/health/live", "/v2/health/ready"})
"""Routes that ask for no token."""
HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
OTHER = "other"
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Gate:
    """Wraps the application."""

    def __init__(self, app: App, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, begun = time.perf_counter(), [500], [False]

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0], begun[0] = message["status"], True
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            await self._through(scope, receive, sending)
        except Exception as error:  # its text may hold what was asked, and a server would log it
            faults.error("a request failed: %s", type(error).__name__)
            if not begun[0]:
                await _refuse(refusals.broken(), scope, receive, sending)
        finally:
            self._note(scope, status[0], time.perf_counter() - started)

    async def _through(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        most = self._service.settings.bounds.body_bytes
        try:
            if scope["path"] not in OPEN:
                told = headers.get(b"authorization", b"").decode("latin-1")
                scope.setdefault("state", {})["caller"] = self._service.caller(told)
            length = headers.get(b"content-length", b"0")
            if not length.isdigit() or len(length) > 18 or int(length) > most:
                raise refusals.too_large(most)
        except refusals.ApiError as error:
            await _refuse(error, scope, receive, send)
            return
        await self._app(scope, _bounded(receive, most, self._service.settings.queue.deadline_s), send)

    def _note(self, scope: Message, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", OTHER)
        caller = scope.get("state", {}).get("caller")
        self._service.metrics.count("requests_total", route=route, status=str(status))
        self._service.metrics.see("request_seconds", seconds)
        line = {
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
            "tenant": getattr(caller, "tenant", ""),
        }
        log.info(json.dumps(line))


async def _refuse(error: refusals.ApiError, scope: Message, receive: Receive, send: Send) -> None:
    body = error.plain_body() if scope["path"].startswith("/v2") else error.body()
    answer = JSONResponse(body, error.status, {**error.headers, "Connection": "close"})
    await answer(scope, receive, send)


def _bounded(receive: Receive, most: int, patience: float) -> Receive:
    """``receive`` that raises 413 behind ``most`` bytes of a body, and 408 where it does not come in time."""
    read, over, until = [0], [False], time.monotonic() + patience

    async def receiving() -> Message:
        if over[0]:
            return await receive()
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, "the body did not come in time") from None
        read[0] += len(message.get("body", b""))
        over[0] = not message.get("more_body", False)
        if read[0] > most:
            raise HTTPException(413, f"the body is larger than {most} bytes")
        return message

    return receiving
