"""HTTP: who may ask what, what is refused and in which words, what is counted."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from llmchain_fl.serve.app import make_app
from llmchain_fl.serve.served import Opened
from llmchain_fl.serve.settings import Bounds, Queue
from llmchain_fl.serve.tenants import Bucket, Tenants

REVOKED: set[str] = set()
SECRET = "Jane-Canary-1970"
TENSOR = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["card"]}


def client_of(service: Any, token: str = "lfl_north") -> TestClient:
    return TestClient(make_app(service), headers={"authorization": f"Bearer {token}"}, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def service(small: Any, tools: Any) -> Iterator[Any]:
    opened = tools.adapters(small, 3)
    told = tools.settings(
        {"north": ["a1@1", "a2@1"], "south": ["a3@1"]},
        bounds=Bounds(body_bytes=4096, inputs=3, text_chars=60),
        queue=Queue(batch=4, rows=16, tenant_share=1.0),
    )
    with tools.running(opened, told, REVOKED.__contains__, {"a1@1": 1.0}) as found:
        yield found


@pytest.fixture
def north(service: Any) -> TestClient:
    return client_of(service)


def test_the_answer_names_its_adapter_and_ranks_labels(north: TestClient, service: Any) -> None:
    answer = north.post("/v1/classify", json={"input": ["card lost", "pay"], "top": 2, "model": "a2@1"}).json()
    assert answer["model"] == "a2@1"
    assert answer["adapter"] == service.engine.served[1].address
    assert [one["index"] for one in answer["results"]] == [0, 1]
    for one in answer["results"]:
        assert [one["label"], one["probability"]] == [one["top"][0]["label"], one["top"][0]["probability"]]
        assert one["top"][0]["probability"] >= one["top"][1]["probability"]
        assert one["abstain"] is False
        assert "receipt" not in one


def test_below_the_public_threshold_an_answer_abstains(north: TestClient) -> None:
    for model, abstains in (("a1@1", True), ("a2@1", False)):
        (one,) = north.post("/v1/classify", json={"input": "card", "model": model}).json()["results"]
        assert one["abstain"] is abstains


def test_embeddings_are_openais_shape_at_unit_length(north: TestClient) -> None:
    numbers = north.post("/v1/embeddings", json={"input": "card lost"}).json()
    packed = north.post("/v1/embeddings", json={"input": "card lost", "encoding_format": "base64"}).json()
    vector = np.array(numbers["data"][0]["embedding"])
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    raw = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4")
    assert np.allclose(raw, vector)
    assert numbers["usage"] == {"prompt_tokens": 4, "total_tokens": 4}


def test_an_adapter_that_is_unknown_or_anothers_or_revoked_is_the_same_404(north: TestClient, service: Any) -> None:
    found = [
        north.post("/v1/classify", json={"input": "x", "model": name}) for name in ("a3@1", "nothing", "a1@2", "a3")
    ]
    REVOKED.add(service.engine.served[0].address)
    try:
        found += [north.post("/v1/classify", json={"input": "x", "model": name}) for name in ("a1@1", "a1", "")]
        assert [one["id"] for one in north.get("/v1/models").json()["data"]] == ["a2@1"]
    finally:
        REVOKED.clear()
    assert {(one.status_code, one.text) for one in found} == {(404, found[0].text)}
    assert [one["id"] for one in north.get("/v1/models").json()["data"]] == ["a1@1", "a2@1"]


@pytest.mark.parametrize(
    "told", ["", "Bearer", "Bearer lfl_nort", "Basic lfl_north", "lfl_north", "Bearer " + "x" * 5000]
)
def test_without_a_tenants_token_nothing_is_said(service: Any, told: str) -> None:
    client = TestClient(make_app(service))
    for route in ("/v1/models", "/v2/models/a1", "/nothing"):
        answer = client.get(route, headers={"authorization": told} if told else {})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": 7}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a"] * 4}, "input"),
        ({"input": "a" * 61}, "input"),
        ({"input": "a", "top": 0}, "top"),
        ({"input": "a", "temprature": 1}, "temprature"),
        ({"input": "a", SECRET + " <b>": 1}, None),
        ({"input": "\ud800"}, "input"),
        ([1], None),
    ],
)
def test_a_field_that_is_wrong_is_named_and_nothing_is_quoted(north: TestClient, body: Any, param: str | None) -> None:
    answer = north.post("/v1/classify", content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"] or "").split(".")[0] == (param or "")
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    "data",
    [b"{", b"\xff\xfe", b"[" * 4000, b'{"input": ' + b"1" * 3000 + b"}", b'{"input": NaN}', b"", b"null"],
)
def test_a_malformed_body_is_a_400(north: TestClient, data: bytes) -> None:
    answer = north.post("/v1/classify", content=data, headers={"content-type": "application/json"})
    assert answer.status_code == 400


def test_a_body_that_is_too_large_is_refused_by_its_header_and_by_its_bytes(north: TestClient) -> None:
    def parts() -> Iterator[bytes]:
        yield from [b'{"input": "', *[b"a" * 1000] * 9, b'"}']

    for content in (b"a" * 5000, parts()):
        answer = north.post("/v1/classify", content=content, headers={"content-type": "application/json"})  # type: ignore[arg-type]
        assert answer.status_code == 413
    odd = north.post("/v1/classify", content=b"{}", headers={"content-length": "-1"})
    assert odd.status_code == 413


def test_a_model_of_another_task_is_a_400(north: TestClient) -> None:
    answer = north.post("/v1/completions", json={"prompt": "card"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "wrong_task")


def test_an_unknown_route_and_method_have_the_same_shape(north: TestClient) -> None:
    assert north.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert north.get("/v1/classify").json()["error"]["code"] == "method_not_allowed"


def test_logs_and_metrics_hold_no_word_of_a_request(north: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="llmchain_fl")
    forged = f'card\n{{"route": "/v1/forged"}}\x1b[2J {SECRET}'
    north.post("/v1/classify", json={"input": forged[:60], "model": "a1@1"})
    north.post("/v1/classify", json={"input": forged[:60], "model": forged[:60]})
    north.get(f"/{SECRET}%0a<script>")
    assert caplog.records
    for record in caplog.records:
        told = json.loads(record.getMessage())
        assert set(told) == {"route", "status", "ms", "tenant"}
        assert told["route"] in ("/v1/classify", "other")
    page = north.get("/metrics").text
    assert SECRET not in page
    assert 'route="/v1/classify",status="404"' in page


def test_a_fault_of_the_program_is_a_500_and_neither_answer_nor_log_quotes_it(
    north: TestClient, service: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*told: Any) -> Any:
        raise KeyError(SECRET)

    monkeypatch.setattr(service, "check_texts", fail)
    for route, body in (("/v1/classify", {"input": "card"}), ("/v2/models/a1/infer", {"inputs": [TENSOR]})):
        answer = north.post(route, json=body)
        assert answer.status_code == 500
        assert SECRET not in answer.text
    assert SECRET not in caplog.text
    assert "KeyError" in caplog.text


def test_answers_are_json_that_no_browser_takes_for_a_page(north: TestClient) -> None:
    answer = north.post("/v1/classify", json={"input": "<script>alert(1)</script>"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<script" not in answer.text
    assert north.get("/docs").status_code == north.get("/redoc").status_code == 404


def test_probes_and_metrics_ask_for_no_token(service: Any) -> None:
    client = TestClient(make_app(service))
    for route in ("/health", "/ready", "/metrics", "/openapi.json", "/v2", "/v2/health/live", "/v2/health/ready"):
        assert client.get(route).status_code == 200, route
    page = client.get("/metrics").text
    assert "llmchain_ready 1" in page
    assert 'llmchain_request_seconds_bucket{le="+Inf"}' in page


def test_while_it_drains_it_is_not_ready_and_says_so(small: Any, tools: Any) -> None:
    with tools.running(tools.adapters(small, 1), tools.settings({"north": ["a1@1"]})) as service:
        client = client_of(service)
        assert client.post("/v1/classify", json={"input": "card"}).status_code == 200
        assert service.worker.drain(20)
        assert client.get("/ready").status_code == 503
        answer = client.post("/v1/classify", json={"input": "card"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert client.get("/health").status_code == 200


def test_a_tenant_that_sends_more_rows_a_minute_is_told_to_wait() -> None:
    now = [0.0]
    bucket = Bucket(6, lambda: now[0])
    assert [bucket.take(1) for _ in range(7)] == [True] * 6 + [False]
    now[0] = 10.0
    assert [bucket.take(1), bucket.take(1)] == [True, False]
    now[0] = 10_000.0
    assert not bucket.take(7)
    assert bucket.take(6)
    assert all(Bucket(0).take(10**6) for _ in range(3))


def test_a_tenant_with_an_adapter_that_is_not_served_is_a_fault_of_the_file(service: Any, tools: Any) -> None:
    from llmchain_fl.core.errors import ConfigError

    with pytest.raises(ConfigError, match=r"tenant.north.adapters: other@1 is not served"):
        Tenants(tools.settings({"north": ["other@1"]}).tenant, service.engine.served)


def test_every_hash_is_compared_whether_one_has_matched_or_not(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmchain_fl.serve import tenants

    seen = []
    monkeypatch.setattr(tenants.hmac, "compare_digest", lambda one, other: seen.append(one) or one == other)
    assert service.tenants.caller("lfl_north").tenant == "north"
    assert len(seen) == 2


def test_routes_are_served_by_the_table_of_tasks(made: Callable[..., list[Opened]]) -> None:
    from llmchain_fl.core.tasks.kind import TASKS
    from llmchain_fl.serve.tasks import NOT_SERVED, SERVED

    assert {*SERVED, *NOT_SERVED} == set(TASKS)
    for name, task in SERVED.items():
        assert task.labels == bool({"label", "labels"} & set(task.gives))
        assert not task.labels or TASKS[name].named
        assert task.writes == TASKS[name].writes
        assert bool(task.takes) == bool(task.gives)
        assert set(task.gives.values()) <= {"BYTES", "FP32", "BOOL"}
