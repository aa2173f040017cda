"""Requests made from the server's own description, good ones and bad ones: no 500."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from llmchain_fl.serve.app import make_app


def test_no_request_of_the_description_is_a_500(small: Any, tools: Any) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    asked = set()
    with tools.running(tools.adapters(small, 1), tools.settings({"north": ["a1@1"]})) as service:
        schema = schemathesis.openapi.from_asgi("/openapi.json", make_app(service))
        for found in schema.get_all_operations():
            operation = found.ok()

            @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy())
            def ask(case: Any) -> None:
                answer = case.call(headers={"authorization": "Bearer lfl_north"})
                assert answer.status_code < 500, (case.path, answer.status_code)
                asked.add(case.path)

            ask()
    assert {"/v1/classify", "/v2/models/{name}/infer", "/metrics"} <= asked
