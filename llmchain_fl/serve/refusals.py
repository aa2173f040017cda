"""Every answer that is a refusal, with its status and words: one class, one table. No message quotes what was sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmchain_fl.serve.tickets import Busy, Draining, Failed, Gone, Late, Refused

RETRY_S = 1
"""Seconds after which whoever met a full queue may come again."""


@dataclass(eq=False)
class ApiError(Exception):
    """A refusal. ``param``: the field that is wrong; ``code``: a word of this program."""

    status: int
    message: str
    code: str
    param: str | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """That go with it."""
        if self.status in (429, 503):
            return {"Retry-After": str(RETRY_S)}
        return {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}

    def body(self) -> dict[str, object]:
        """As OpenAI's clients read it."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        told = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": told}

    def plain_body(self) -> dict[str, object]:
        """As the Open Inference Protocol has it."""
        return {"error": self.message}


def unauthenticated() -> ApiError:
    """No token, or nobody's."""
    return ApiError(401, "no valid bearer token", "invalid_api_key")


def no_such_model() -> ApiError:
    """Unknown, revoked or another tenant's: the same words, so that nobody learns which."""
    return ApiError(404, "there is no such model for this token", "model_not_found", "model")


def not_for_this(route: str) -> ApiError:
    """The model is of another kind of task."""
    return ApiError(400, f"this model does not answer {route}", "wrong_task", "model")


def too_large(most: int) -> ApiError:
    """Of a body."""
    return ApiError(413, f"the body is larger than {most} bytes", "too_large")


def bad(param: str, what: str) -> ApiError:
    """A field that cannot be taken."""
    return ApiError(400, f"{param}: {what}", "invalid_value", param)


_REFUSED: Mapping[type[Refused], tuple[int, str, str]] = {
    Busy: (429, "too many requests wait; come again", "queue_full"),
    Late: (504, "the deadline has passed", "deadline"),
    Gone: (499, "the client is gone", "gone"),
    Draining: (503, "the server ends", "draining"),
    Failed: (500, "the model could not compute this", "failed"),
}


def refusal(reason: Refused) -> ApiError:
    """The answer to a row that was not computed."""
    return ApiError(*_REFUSED[type(reason)])


def too_fast() -> ApiError:
    """More rows a minute than the tenant may send."""
    return ApiError(429, "more rows a minute than this token may send", "rate_limited")


def broken() -> ApiError:
    """A fault of this program."""
    return ApiError(500, "the server has a fault; its log names the kind", "failed")


def not_ready() -> ApiError:
    """The model is being loaded."""
    return ApiError(503, "the model is not ready", "not_ready")
