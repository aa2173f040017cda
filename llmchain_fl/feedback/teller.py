"""Ask a server and tell it what would have been right: ``/v1/classify``, ``/v1/consent``, ``/v1/feedback``."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from llmchain_fl.core.errors import ConfigError, RunError

WAIT_S = 120.0


class Teller:
    """One connection under one token.

    Args:
        address: ``http://`` or ``https://`` and a host, as ``serve up`` prints it.

    Raises:
        ConfigError: it is no such address.
    """

    def __init__(self, address: str, token: str) -> None:
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        url = urlsplit(address)
        try:
            self._line = kinds[url.scheme](url.hostname or "", url.port, timeout=WAIT_S)
        except (KeyError, ValueError):
            raise ConfigError(
                [f"{address!r} is no address of a server"], remedy="such as http://127.0.0.1:8080"
            ) from None
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

    def post(self, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """An answer.

        Raises:
            RunError: it was refused, or there is none.
        """
        try:
            self._line.request("POST", route, json.dumps(body), self._headers)
            answer = self._line.getresponse()
            tree: dict[str, Any] = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            message = f"no answer from the server ({type(error).__name__})"
            raise RunError(message, remedy="is it up? llmchain-fl serve up FILE") from None
        if answer.status >= 300:
            error_of = tree.get("error")
            words = error_of.get("message") if isinstance(error_of, dict) else ""
            raise RunError(f"{route} answered {answer.status}: {words}", remedy="nothing was kept")
        return tree

    def ask(self, texts: list[str]) -> dict[str, Any]:
        """The best label of each text, with a receipt where feedback is taken."""
        return self.post("/v1/classify", {"input": texts, "top": 1})

    def agree(self, version: str, person: str = "") -> None:
        """Whoever the token stands for, or ``person``, agrees to training, having read this version of the text."""
        self.post("/v1/consent", {"version": version, "scope": "train", "given": True, "person": person})

    def correct(self, answer: Mapping[str, Any], place: int, text: str, label: str, person: str = "") -> None:
        """Say what would have been right for the text at ``place`` of an answer.

        Raises:
            RunError: the server takes no feedback, or not this one.
        """
        one = answer["results"][place]
        if "receipt" not in one:
            raise RunError("this server takes no feedback", remedy="set feedback.store in its serve file")
        body = {"request_id": answer["id"], "model": answer["model"], "receipt": one["receipt"], "person": person}
        body |= {"input": text, "output": one["label"], "kind": "choose", "correction": label}
        self.post("/v1/feedback", body)
