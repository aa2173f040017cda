"""A desk of one site: the real server over a verified adapter, made-up users who ask it, a clerk who corrects it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmchain_fl.api.watching import Callback
from llmchain_fl.config.write import table_to_toml
from llmchain_fl.core.base_model import Base, BaseSpec, load_base
from llmchain_fl.core.errors import RunError
from llmchain_fl.feedback.teller import Teller
from llmchain_fl.serve.settings import ServeSettings, read_settings
from llmchain_fl.serve.tokens import new_token, token_hash
from llmchain_fl.serve.up import open_server

CONSENT = "made-up-users"
TOGETHER = 32
"""Texts of one request."""
LOADING_S = 600.0


def rounds_told(say: Callable[[str], None]) -> Callback:
    """Says of each round that it is done."""
    return lambda report, _rows: say(f"round {report.round} of {report.total}: {report.seconds:.0f} s")


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

    def __init__(self, teller: Teller) -> None:
        self._teller = teller

    def ask(self, texts: Sequence[str]) -> list[str]:
        """The best label of each text."""
        labels = list[str]()
        for start in range(0, len(texts), TOGETHER):
            answer = self._teller.ask(list(texts[start : start + TOGETHER]))
            labels += [one["label"] for one in answer["results"]]
        return labels

    def correct(self, user: User, talk: Talk, topics: Mapping[str, str]) -> None:
        """A user agrees to training and asks; a clerk says of each answer what is right. ``topics``: of passages."""
        self._teller.agree(CONSENT, user.name)
        answer = self._teller.ask([text for text, _ in user.messages])
        for place, ((text, label), one) in enumerate(zip(user.messages, answer["results"], strict=True)):
            talk.asked, talk.right = talk.asked + 1, talk.right + (one["label"] == label)
            talk.abstained += one["abstain"]
            if one.get("passages"):
                talk.shown += 1
                talk.helped += any(topics.get(passage["id"]) == label for passage in one["passages"])
            self._teller.correct(answer, place, text, label, user.name)
            talk.told += 1


def write_serve_file(folder: Path, site: str, token: str, facts: Mapping[str, Any]) -> Path:
    """``serve.toml`` of one site. ``facts``: adapter folder, label, threshold, base, home, passages, threads, store."""
    tree: dict[str, Any] = {
        "port": 0,
        "hub_home": facts["home"],
        "base": facts["base"],
        "threads": facts["threads"],
        "adapter": [{"folder": facts["adapter"], "abstain_below": facts["threshold"]}],
        "tenant": {site: {"adapters": [facts["label"]], "tokens": [token_hash(token)], "speaks_for_persons": True}},
        "feedback": {"store": facts["store"], "rows_per_day": 1000},
    }
    if facts["passages"]:
        tree["passages"] = {"file": facts["passages"]}
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
def serving(folder: Path, site: str, settings: Mapping[str, Any], load: Any) -> Iterator[Desk]:
    """A server of one site, as :func:`listening` makes it, over a file that is written here."""
    token = new_token()
    with listening(read_settings(write_serve_file(folder, site, token, settings)), load) as address:
        yield Desk(Teller(address, token))


@contextmanager
def listening(settings: ServeSettings, load: Any) -> Iterator[str]:
    """The address of a server on a thread of this process, over loopback, until the block ends.

    Raises:
        HubError, ModelError: an adapter that does not hold, or cannot be served.
        RunError: it was not ready in time.
    """
    there, address, faults = threading.Event(), list[str](), list[BaseException]()

    def ready(http_address: str, _grpc: str) -> None:
        address.append(http_address)
        there.set()

    running = open_server(settings, told=ready, load=load)

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
        yield address[0]
    finally:
        running.stop()
        thread.join(60)
        if running.worker.engine is not None:
            running.worker.engine.bank.close()
