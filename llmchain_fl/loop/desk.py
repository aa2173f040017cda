"""A desk of one site: the real server over a verified adapter, made-up users who ask it, a clerk who corrects it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmchain_fl.config.write import table_to_toml
from llmchain_fl.core.base_model import Base, BaseSpec, load_base
from llmchain_fl.core.errors import RunError
from llmchain_fl.serve.settings import read_settings
from llmchain_fl.serve.tokens import new_token, token_hash
from llmchain_fl.serve.up import open_server

CONSENT = {"version": "made-up-users", "scope": "train", "given": True}
TOGETHER = 32
"""Texts of one request."""
LOADING_S = 600.0


@dataclass(frozen=True)
class User:
    """A made-up person with what this person writes: (text, the label that a clerk knows to be right)."""

    name: str
    messages: tuple[tuple[str, str], ...]


@dataclass
class Talk:
    """What came of asking. ``shown``: times that passages were shown; ``helped``: one was of the right label."""

    asked: int = 0
    right: int = 0
    abstained: int = 0
    told: int = 0
    shown: int = 0
    helped: int = 0


class Desk:
    """One server that runs, and its only tenant."""

    def __init__(self, address: str, token: str, model: str) -> None:
        host, _, port = address.removeprefix("http://").rpartition(":")
        self._line, self._token, self._model = http.client.HTTPConnection(host, int(port), timeout=120), token, model

    def post(self, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """An answer.

        Raises:
            RunError: it was refused.
        """
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        self._line.request("POST", route, json.dumps(body), headers)
        answer = self._line.getresponse()
        told: dict[str, Any] = json.loads(answer.read())
        if answer.status >= 300:
            what = f"{route} answered {answer.status}: {told['error']['message']}"
            raise RunError(what, remedy="its serve file, beside the store of feedback, says what it allows")
        return told

    def ask(self, texts: Sequence[str]) -> list[str]:
        """The best label of each text."""
        found = list[str]()
        for start in range(0, len(texts), TOGETHER):
            part = list(texts[start : start + TOGETHER])
            found += [one["label"] for one in self.post("/v1/classify", {"input": part, "top": 1})["results"]]
        return found

    def correct(self, user: User, talk: Talk, topics: Mapping[str, str]) -> None:
        """A user agrees to training and asks; a clerk says of each answer what is right. ``topics``: of passages."""
        self.post("/v1/consent", {**CONSENT, "person": user.name})
        texts = [text for text, _ in user.messages]
        answer = self.post("/v1/classify", {"input": texts, "top": 1})
        for (text, label), one in zip(user.messages, answer["results"], strict=True):
            right = one["label"] == label
            talk.asked, talk.right, talk.abstained = talk.asked + 1, talk.right + right, talk.abstained + one["abstain"]
            if one.get("passages"):
                talk.shown += 1
                talk.helped += any(topics.get(passage["id"]) == label for passage in one["passages"])
            told = {"request_id": answer["id"], "model": self._model, "receipt": one["receipt"], "person": user.name}
            told |= {"input": text, "output": one["label"], "kind": "choose", "correction": label}
            self.post("/v1/feedback", told)
            talk.told += 1


def write_serve_file(folder: Path, site: str, token: str, told: Mapping[str, Any]) -> Path:
    """``serve.toml`` of one site. ``told``: adapter folder, label, threshold, base, home, passages, threads, store."""
    tree: dict[str, Any] = {
        "port": 0,
        "hub_home": told["home"],
        "base": told["base"],
        "threads": told["threads"],
        "adapter": [{"folder": told["adapter"], "abstain_below": told["threshold"]}],
        "tenant": {site: {"adapters": [told["label"]], "tokens": [token_hash(token)], "speaks_for_persons": True}},
        "feedback": {"store": told["store"], "rows_per_day": 1000},
    }
    if told["passages"]:
        tree["passages"] = {"file": told["passages"]}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "serve.toml"
    file.write_text(table_to_toml(tree), encoding="utf-8")
    return file


def bare_base() -> Any:
    """``BaseSpec -> Base`` that loads each base once, apart from that of the run in this process."""
    held = dict[BaseSpec, Base]()

    def load(spec: BaseSpec) -> Base:
        if spec not in held:
            held[spec] = load_base.__wrapped__(spec)
        return held[spec]

    return load


@contextmanager
def serving(folder: Path, site: str, told: Mapping[str, Any], load: Any) -> Iterator[Desk]:
    """A server on a thread of this process, over loopback, until the block ends.

    Raises:
        HubError, ModelError: an adapter that does not hold, or cannot be served.
        RunError: it was not ready in time.
    """
    token, there, address, faults = new_token(), threading.Event(), list[str](), list[BaseException]()

    def ready(http_address: str, _grpc: str) -> None:
        address.append(http_address)
        there.set()

    running = open_server(read_settings(write_serve_file(folder, site, token, told)), told=ready, load=load)

    def run() -> None:
        try:
            running.run()
        except BaseException as fault:
            faults.append(fault)
        there.set()

    thread = threading.Thread(target=run, name="desk", daemon=True)
    thread.start()
    try:
        if not there.wait(LOADING_S) or faults:
            raise faults[0] if faults else RunError("the server was not ready in time", remedy="play it again")
        yield Desk(address[0], token, told["label"])
    finally:
        running.stop()
        thread.join(60)
        if running.worker.engine is not None:
            running.worker.engine.bank.close()
