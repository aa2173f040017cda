"""The application: every route over one service, and one shape for whatever is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from llmchain_fl import __version__
from llmchain_fl.serve.gate import Gate
from llmchain_fl.serve.metrics import CONTENT_TYPE
from llmchain_fl.serve.oip_http import oip_routes
from llmchain_fl.serve.receipts import Receipts
from llmchain_fl.serve.refusals import ApiError
from llmchain_fl.serve.routes_labels import label_routes
from llmchain_fl.serve.routes_reading import reading_routes
from llmchain_fl.serve.routes_text import text_routes
from llmchain_fl.serve.service import Service

FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
WORDS = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 408: "too_slow", 413: "too_large"}


def make_app(service: Service, receipts: Receipts | None = None, more: Sequence[APIRouter] = ()) -> FastAPI:
    """The application.

    Args:
        receipts: where feedback is taken.
        more: further routes.
    """
    app = FastAPI(title="llmchain-fl", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(Gate, service=service)
    told = [made(service, receipts) for made in (label_routes, reading_routes, text_routes)]
    for router in (_own_routes(service), *told, *more):
        app.include_router(router)
    app.include_router(oip_routes(service))
    app.add_exception_handler(ApiError, _refused)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http)  # type: ignore[arg-type]
    return app


def _own_routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "alive"}

    @router.get("/ready", response_model=None)
    async def ready() -> Response:
        """Whether requests are answered: 503 while the model is loaded, and while the server ends."""
        return JSONResponse({"status": "ready" if service.ready else "not ready"}, 200 if service.ready else 503)

    @router.get("/metrics", response_model=None)
    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        return PlainTextResponse(service.metrics.page(), media_type=CONTENT_TYPE)

    return router


def _answer(request: Request, error: ApiError) -> Response:
    body = error.plain_body() if request.url.path.startswith("/v2") else error.body()
    return JSONResponse(body, error.status, dict(error.headers))


async def _refused(request: Request, error: ApiError) -> Response:
    return _answer(request, error)


async def _http(request: Request, error: HTTPException) -> Response:
    code = WORDS.get(error.status_code, "refused")
    words = str(error.detail) if error.status_code in (408, 413) else code.replace("_", " ")
    return _answer(request, ApiError(error.status_code, words, code))


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    """The first field that is wrong, by its name if it looks like one; nothing of what was sent."""
    first: Any = error.errors()[0]
    parts = [str(part) for part in first["loc"][1:] if isinstance(part, int) or FIELD.fullmatch(str(part))]
    param = ".".join(parts) or None
    reason = {"extra_forbidden": "this field is not served", "missing": "this field is missing"}
    words = reason.get(str(first["type"]), f"not valid ({first['type']})")
    return _answer(request, ApiError(400, f"{param or 'body'}: {words}", "invalid_value", param))
