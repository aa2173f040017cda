"""Attacks on requests and feedback: each is refused, quotes nothing, and leaves the store as it was."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from llmchain_fl.feedback.store import Store
from llmchain_fl.serve.app import make_app
from llmchain_fl.serve.receipts import Receipts
from llmchain_fl.serve.routes_feedback import Desk, feedback_routes
from llmchain_fl.serve.settings import Bounds, Tenant
from llmchain_fl.serve.tokens import token_hash

CANARY = "Jane-Canary-1970"
PERSON = "lfl_ann"
JSON = {"content-type": "application/json"}


class Target:
    """A server of two tenants with a desk; ann has a token of her own at north, south speaks for its users."""

    def __init__(self, service: Any, store: Store, labels: tuple[str, ...]) -> None:
        self.store, self.labels = store, labels
        told = {f"a{n}@1": frozenset(labels) for n in (1, 2)}
        desk = Desk(store, Receipts(store.key), told, 3, service.metrics)
        self._app = make_app(service, desk.receipts, [feedback_routes(service, desk)])

    def send(self, method: str, path: str, token: str = "lfl_north", **told: Any) -> Any:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        client = TestClient(self._app, raise_server_exceptions=False)
        return client.request(method, path, headers={**headers, **told.pop("headers", {})}, **told)

    def answered(self, token: str, text: str = "card lost") -> dict[str, Any]:
        """Feedback that would be taken: on an own answer, with its receipt."""
        found = self.send("POST", "/v1/classify", token, json={"input": text}).json()
        (one,) = found["results"]
        body = {"request_id": found["id"], "model": found["model"], "receipt": one["receipt"], "input": text}
        return {**body, "output": one["label"], "kind": "choose", "correction": self.labels[0]}


@pytest.fixture(scope="module")
def target(small: Any, tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    north = Tenant(adapters=["a1@1"], tokens=[token_hash("lfl_north")], persons={"ann": token_hash(PERSON)})
    south = Tenant(adapters=["a2@1"], tokens=[token_hash("lfl_south")], speaks_for_persons=True)
    told = tools.settings({"north": ["a1@1"]}, tenant={"north": north, "south": south}, bounds=Bounds(body_bytes=65536))
    store = Store(Path(tmp_path_factory.mktemp("attacked")) / "s.sqlite")
    with tools.running(tools.adapters(small, 2), told) as service:
        yield Target(service, store, tuple(small.labels))
    store.close()


NAMES = {
    "a path that climbs": "../a1@1",
    "a path of the machine": "/etc/passwd",
    "an address": "file:///etc/passwd",
    "another tenant's adapter": "a2@1",
    "another tenant's name": "a2",
    "a zero byte": "a1@1\0",
    "a Cyrillic letter": "\u04301@1",
    "blanks around it": " a1@1 ",
    "a version that is not there": "a1@2",
    "a pattern": "%",
    "markup": f"<script>{CANARY}</script>",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_not_the_tenants_is_the_404_of_a_name_that_nobody_has(target: Target, name: str) -> None:
    found = target.send("POST", "/v1/classify", json={"input": "card", "model": NAMES[name]})
    nobody = target.send("POST", "/v1/classify", json={"input": "card", "model": "nobody"})
    assert (found.status_code, found.text) == (404, nobody.text)


PATHS = {
    "out of the models": "/v2/models/..%2f..%2fetc%2fpasswd/ready",
    "dots": "/v2/models/%2e%2e/ready",
    "a slash too many": "//v1/classify",
    "another's model": "/v2/models/a2/ready",
    "a page of the framework": "/docs",
    "a loader of adapters": "/v1/load_lora_adapter",
    "a line end": f"/v1/models%0d%0a{CANARY}",
}


@pytest.mark.parametrize("name", PATHS)
def test_a_path_leads_nowhere_else(target: Target, name: str) -> None:
    for method in ("GET", "POST"):
        found = target.send(method, PATHS[name])
        assert found.status_code in (404, 405)
        assert CANARY not in found.text


WHO = {
    "none": {},
    "in the address": {"params": {"token": "lfl_north", "api_key": "lfl_north"}},
    "in a cookie": {"headers": {"cookie": "authorization=Bearer lfl_north"}},
    "two at once": {"headers": {"authorization": "Bearer lfl_north, Bearer lfl_south"}},
    "its hash": {"headers": {"authorization": f"Bearer {token_hash('lfl_north')}"}},
    "as a password": {"headers": {"authorization": "Basic bGZsX25vcnRo"}},
}


@pytest.mark.parametrize("name", WHO)
def test_a_token_that_comes_another_way_is_none(target: Target, name: str) -> None:
    assert target.send("GET", "/v1/models", "", **WHO[name]).status_code == 401


BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "nested without end": (b'{"input": ' + b"[" * 30_000, JSON),
    "a number without end": (b'{"input": "a", "top": ' + b"9" * 5000 + b"}", JSON),
    "not a number": (b'{"input": "a", "top": NaN}', JSON),
    "another alphabet": (b'{"input": "\xe9\xe8"}', JSON),
    "half a character": (b'{"input": "\xed\xa0\x80"}', JSON),
    "packed": (gzip.compress(b'{"input": "a"}'), {**JSON, "content-encoding": "gzip"}),
    "a form": (b"input=a", {"content-type": "application/x-www-form-urlencoded"}),
    "a list": (b"[]", JSON),
    "a field that is not served": (json.dumps({"input": "a", CANARY: "adapter_path"}).encode(), JSON),
    "more texts than may be": (json.dumps({"input": ["a"] * 65}).encode(), JSON),
    "more candidates than may be": (json.dumps({"query": "a", "candidates": ["a"] * 65}).encode(), JSON),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_malformed_body_is_refused_and_not_quoted(target: Target, name: str) -> None:
    body, headers = BODIES[name]
    route = "/v1/rank" if "candidates" in name else "/v1/classify"
    found = target.send("POST", route, content=body, headers=headers)
    assert found.status_code == 400
    assert CANARY not in found.text


def test_of_two_names_in_one_body_none_opens_another_tenants_adapter(target: Target) -> None:
    for body in (b'{"input":"a","model":"a1@1","model":"a2@1"}', b'{"input":"a","model":"a2@1","model":"a1@1"}'):
        found = target.send("POST", "/v1/classify", content=body, headers=JSON)
        assert found.status_code == 404 or found.json()["model"] == "a1@1"


FEEDBACK: dict[str, tuple[dict[str, Any], int]] = {
    "a receipt that was made up": ({"receipt": "0" * 64}, 404),
    "another input": ({"input": "card"}, 404),
    "another output": ({"output": "nothing"}, 404),
    "another request": ({"request_id": "req-" + "0" * 24}, 404),
    "another model": ({"model": "a2@1"}, 404),
    "a request that is a path": ({"request_id": "req-../../../../etc/passwd"}, 400),
    "a receipt that is none": ({"receipt": "Z" * 64}, 400),
    "a kind that is none": ({"kind": "delete"}, 400),
    "a label that is none": ({"correction": f"<img src=x onerror={CANARY}>"}, 400),
    "another person": ({"person": "bob"}, 403),
    "a field more": ({"state": "accepted"}, 400),
    "an edition": ({"edition": 1}, 400),
}


@pytest.mark.parametrize("name", FEEDBACK)
def test_feedback_that_is_not_the_persons_own_is_refused_and_not_kept(target: Target, name: str) -> None:
    changes, status = FEEDBACK[name]
    before = len(target.store.records())
    found = target.send("POST", "/v1/feedback", PERSON, json={**target.answered(PERSON), **changes})
    assert found.status_code == status
    assert CANARY not in found.text
    assert len(target.store.records()) == before


def test_another_tenants_receipt_and_a_token_of_nobody_are_refused(target: Target) -> None:
    theirs = target.answered("lfl_south")
    assert target.send("POST", "/v1/feedback", PERSON, json=theirs).status_code == 404
    own = target.answered("lfl_north")
    assert target.send("POST", "/v1/feedback", "lfl_north", json={**own, "person": "ann"}).status_code == 403
    consent = {"version": "v1", "scope": "train", "given": False, "person": "ann"}
    assert target.send("POST", "/v1/consent", "lfl_north", json=consent).status_code == 403


@pytest.mark.parametrize("person", ["", " ", "ann\x1b[2J", "ann\nbob", "ann\u202e", "x" * 201])
def test_a_person_that_moves_a_cursor_or_is_nobody_is_refused(target: Target, person: str) -> None:
    body = {**target.answered("lfl_south"), "person": person}
    assert target.send("POST", "/v1/feedback", "lfl_south", json=body).status_code == 400


def test_words_of_the_store_are_words_and_no_statements(target: Target) -> None:
    person = "x'); DROP TABLE rows; --"
    body = {**target.answered("lfl_south", "pay'; DELETE FROM rows; --"), "person": person}
    assert target.send("POST", "/v1/feedback", "lfl_south", json=body).status_code == 201
    assert [one.told.input for one in target.store.records("person = ?", (person.lower(),))] == [body["input"]]


def test_a_flood_of_one_person_ends_and_takes_nothing_from_another(target: Target) -> None:
    def tell(person: str, text: str) -> int:
        body = {**target.answered("lfl_south", text), "person": person}
        return int(target.send("POST", "/v1/feedback", "lfl_south", json=body).status_code)

    assert [tell("flood", f"pay {n}") for n in range(5)] == [201, 201, 201, 429, 429]
    assert tell("quiet", "pay 0") == 201
