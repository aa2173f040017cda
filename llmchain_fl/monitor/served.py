"""The page over HTTP, on this machine alone: by the server stack of ``llmchain-fl serve``."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from llmchain_fl.core.errors import ConfigError

HOST, REFRESH_S, PATIENCE_S = "127.0.0.1", 5, 5.0
HEADERS = {"Refresh": str(REFRESH_S), "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
           "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"}  # fmt: skip


def make_app(page: Callable[[], str]) -> FastAPI:
    """``/``: the page; ``/health``. A request under another name than this machine's is refused (rebinding)."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "testserver"])

    @app.get("/", response_class=HTMLResponse)
    def show() -> HTMLResponse:
        """As it is now."""
        return HTMLResponse(page(), headers=HEADERS)

    @app.get("/health")
    def health() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "alive"}

    return app


class PageServer:
    """Serves until it is closed.

    Raises:
        ConfigError: the port cannot be had.
    """

    def __init__(self, page: Callable[[], str], port: int) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, port))
        except OSError as error:
            self._socket.close()
            fault = f"page.port: {port} cannot be had: {error.strerror}"
            raise ConfigError([fault], remedy="set another one; 0 is a free one") from None
        options = uvicorn.Config(make_app(page), log_level="warning", access_log=False, server_header=False)
        self._server = uvicorn.Server(options)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="page", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it is."""
        return f"http://{HOST}:{self._socket.getsockname()[1]}"

    def close(self) -> None:
        """End it."""
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)
        self._socket.close()
