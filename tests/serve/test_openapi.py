"""Requests made from the server's own description, good ones and bad ones: no 500."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from llmchain_fl.feedback.store import Store
from llmchain_fl.serve.app import make_app
from llmchain_fl.serve.receipts import Receipts
from llmchain_fl.serve.routes_feedback import Desk, feedback_routes


@pytest.mark.parametrize("examples", [4, pytest.param(250, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("kind", ["classification", pytest.param("span-qa", marks=pytest.mark.thorough)])
def test_no_request_of_the_description_is_a_500(
    small: Any, tools: Any, tmp_path: Path, examples: int, kind: str
) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    asked, store = set(), Store(tmp_path / "s.sqlite")
    with tools.running(tools.adapters(small, 1, kind), tools.settings({"north": ["a1@1"]})) as service:
        desk = Desk(store, Receipts(store.key), {}, 50, service.metrics)
        app = make_app(service, desk.receipts, [feedback_routes(service, desk)])
        schema = schemathesis.openapi.from_asgi("/openapi.json", app)
        for found in schema.get_all_operations():
            operation = found.ok()

            @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy())
            def ask(case: Any) -> None:
                answer = case.call(headers={"authorization": "Bearer lfl_north"})
                assert answer.status_code < 500, (case.path, answer.status_code)
                asked.add(case.path)

            ask()
    store.close()
    assert {"/v1/classify", "/v1/answer", "/v1/feedback", "/v2/models/{name}/infer", "/metrics"} <= asked
