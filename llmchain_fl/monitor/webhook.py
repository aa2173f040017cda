"""Tells one address of alarms. Counts and rates; no text and no source ever reach it.

| case | what |
|---|---|
| the receiver does not answer, or answers 5xx | tried ``TRIES`` times, then a line in the log |
| it answers 3xx, 4xx | a line in the log; a redirection is not followed |
| more than ``MOST`` notices wait | the newest is dropped, with a line in the log |
| the monitor ends | what waits is sent first, for ``PATIENCE_S`` at most |
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import queue
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.monitor.settings import Webhook
from llmchain_fl.monitor.watch import Notice

log = logging.getLogger("llmchain_fl.monitor")
TRIES, WAIT_S, TIMEOUT_S, PATIENCE_S, MOST = 3, 1.0, 5.0, 20.0, 256


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows no redirection."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: urllib raises the answer as an error."""


class Teller:
    """Sends notices on a thread of its own, so that a slow receiver holds up no text.

    Raises:
        ConfigError: the secret cannot be read, or is shorter than 16 bytes.
    """

    def __init__(self, settings: Webhook) -> None:
        self._url, self._secret = settings.url, _secret(settings.secret)
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Straight()).open
        self._queue: queue.Queue[Notice | None] = queue.Queue(MOST)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
        self._thread.start()

    def tell(self, notice: Notice) -> None:
        """Put it to what waits."""
        try:
            self._queue.put_nowait(notice)
        except queue.Full:
            log.error("the webhook is too slow: a notice was dropped")

    def close(self) -> None:
        """Send what waits, for a while."""
        try:
            self._queue.put(None, timeout=PATIENCE_S)
        except queue.Full:
            log.error("the webhook is too slow: notices were dropped")
        self._thread.join(PATIENCE_S)
        self._ended.set()

    def _run(self) -> None:
        while (notice := self._queue.get()) is not None:
            body = json.dumps({"event": "llmchain-fl monitor", **notice.to_dict()}, allow_nan=False).encode()
            why = ""
            for attempt in range(TRIES):
                if attempt and self._ended.wait(WAIT_S * attempt):
                    break
                why, again = self._send(body)
                if not again:
                    break
            if why:
                log.error("the webhook did not take a notice: %s", why)

    def _send(self, body: bytes) -> tuple[str, bool]:
        """Why it was not taken ("": it was), and whether to try again."""
        headers = {"Content-Type": "application/json", "User-Agent": "llmchain-fl"}
        if self._secret:
            headers["X-Signature"] = f"sha256={hmac.new(self._secret, body, hashlib.sha256).hexdigest()}"
        request = urllib.request.Request(self._url, body, headers)
        try:
            with self._open(request, timeout=TIMEOUT_S):
                return "", False
        except urllib.error.HTTPError as error:
            return f"status {error.code}", error.code >= 500
        except (OSError, ValueError) as error:
            return type(error).__name__, True


def _secret(file: str) -> bytes:
    if not file:
        return b""
    try:
        secret = Path(file).read_bytes().strip()
    except OSError as error:
        raise ConfigError([f"webhook.secret: {error.strerror}"], remedy="name a readable file") from None
    if len(secret) < 16:
        raise ConfigError(["webhook.secret: shorter than 16 bytes"], remedy="openssl rand -hex 32 makes one")
    return secret
