"""A canary over HTTP: who is answered by which adapter, what a vote does, and the pointer that goes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.promote.canary import STOPPED, Canary, read_canary, write_canary
from llmchain_fl.serve.app import make_app
from llmchain_fl.serve.canary import Arms
from llmchain_fl.serve.routes_feedback import Desk, feedback_routes
from llmchain_fl.serve.settings import Feedback, ServedAdapter, Tenant
from llmchain_fl.serve.tokens import token_hash

TOKENS = {f"p{number}": f"lfl_p{number}" for number in range(12)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canary")


@pytest.fixture(scope="module")
def opened(small: Any, tools: Any) -> list[Any]:
    """Two versions of one adapter, and another one."""
    first, _, third = tools.adapters(small, 3)
    draw, arrays = np.random.default_rng(2), first.verified.arrays
    near = {name: (value + 0.1 * draw.normal(size=value.shape)).astype(np.float32) for name, value in arrays.items()}
    bank = replace(first.verified, label="bank@1")
    told = (bank, replace(bank, label="bank@2", arrays=near))
    return [
        *(replace(first, verified=one) for one in told),
        replace(third, verified=replace(third.verified, label="else@1")),
    ]


@pytest.fixture
def service(opened: list[Any], tools: Any, place: Path) -> Any:
    line = place / "line"
    line.mkdir(exist_ok=True)
    current, candidate, _ = (one.verified for one in opened)
    write_canary(
        line, Canary(candidate.address, current.address, candidate.label, current.label, key="00" * 32).to_dict()
    )
    persons = {name: token_hash(token) for name, token in TOKENS.items()}
    told = tools.settings({"south": ["else@1"]}).model_copy(
        update={
            "feedback": Feedback(store=str(place / "store.sqlite")),
            "tenant": {
                "north": Tenant(adapters=["bank@1"], persons=persons),
                "south": Tenant(adapters=["else@1"], tokens=[token_hash("lfl_south")]),
            },
        }
    )
    with tools.running(opened, told) as found:
        found.arms = Arms.open(str(line), str(place), opened)
        yield found


@pytest.fixture
def ask(service: Any, opened: list[Any]) -> Any:
    desk = Desk.open(service.settings, opened, service.metrics)
    app = make_app(service, desk.receipts, [feedback_routes(service, desk)])
    with TestClient(app) as client:

        def post(token: str, path: str, body: dict[str, Any]) -> Any:
            return client.post(path, json=body, headers={"authorization": f"Bearer {token}"})

        yield post
    desk.close()


def test_persons_stay_with_their_adapter_and_votes_that_speak_against_the_candidate_stop_it(
    service: Any, ask: Any, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    back: list[str] = []
    monkeypatch.setattr("llmchain_fl.serve.canary.Line.roll_back", lambda line, trust, to: back.append(to))
    monkeypatch.setattr("llmchain_fl.serve.canary.read_trust", lambda home: None)
    canary = service.arms.canary
    arms = {name: ask(token, "/v1/classify", {"input": "card"}).json()["model"] for name, token in TOKENS.items()}
    assert set(arms.values()) == {"bank@1", "bank@2"}
    assert arms == {
        name: ask(token, "/v1/classify", {"input": "pay", "model": "bank"}).json()["model"]
        for name, token in TOKENS.items()
    }
    assert ask("lfl_p0", "/v1/classify", {"input": "card", "model": "bank@1"}).json()["model"] == "bank@1"
    assert ask("lfl_south", "/v1/classify", {"input": "card"}).json()["model"] == "else@1"
    assert ask("lfl_south", "/v1/classify", {"input": "card", "model": "bank@2"}).status_code == 404

    texts = [row["text"] for row in small.rows(30, seed=8)]
    both = {
        text: {
            label: ask("lfl_p0", "/v1/classify", {"input": text, "model": label}).json()["results"][0]
            for label in ("bank@1", "bank@2")
        }
        for text in dict.fromkeys(texts)
    }
    differ = {text for text, found in both.items() if found["bank@1"]["label"] != found["bank@2"]["label"]}
    assert differ
    assert differ != set(both)
    assert all(one.get("ask", False) is (text in differ) for text, found in both.items() for one in found.values())

    same, other = next(text for text in both if text not in differ), sorted(differ)
    for name, arm in arms.items():
        for text in (same, *other[:2]):
            answer = ask(TOKENS[name], "/v1/classify", {"input": text}).json()
            (one,) = answer["results"]
            kind = "down" if arm == "bank@2" else "up"
            told = {"request_id": answer["id"], "model": answer["model"], "receipt": one["receipt"], "input": text,
                    "output": one["label"], "kind": kind}  # fmt: skip
            before = canary.bet.votes
            assert ask(TOKENS[name], "/v1/feedback", told).status_code == 201
            assert ask(TOKENS[name], "/v1/feedback", told).status_code == 201, "the same again"
            assert canary.bet.votes - before <= (text in differ)
    assert canary.state == STOPPED
    assert canary.bet.votes == 8
    assert back == [canary.current]
    assert read_canary(service.arms.line) == canary
    assert {ask(token, "/v1/classify", {"input": "card"}).json()["model"] for token in TOKENS.values()} == {"bank@1"}


def test_a_canary_whose_adapters_are_not_served_is_refused(opened: list[Any], place: Path, tmp_path: Path) -> None:
    assert Arms.open(str(tmp_path), "", opened) is None
    first, second = opened[0].verified, opened[1].verified
    write_canary(tmp_path, Canary("f" * 64, first.address, second.label, first.label).to_dict())
    with pytest.raises(ConfigError, match="bank@2 is not served"):
        Arms.open(str(tmp_path), "", opened)


def test_a_canary_without_feedback_is_refused() -> None:
    from llmchain_fl.serve.settings import CanarySettings, ServeSettings

    told = {"adapter": [ServedAdapter(folder="x")], "tenant": {"n": Tenant(adapters=["a@1"])}}
    with pytest.raises(ValueError, match=r"set feedback\.store"):
        ServeSettings(**told, canary=CanarySettings(line="line"))
