"""``/v1/extract``, ``/v1/answer``, ``/v1/rank``: what the run itself answers, alone and in any company."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from llmchain_fl.core.work import open_work
from llmchain_fl.serve.app import make_app
from llmchain_fl.serve.settings import Bounds

TEXT = "why card lost, pay the new loan rate why send money to new card lost pay why rate loan pin send why pay"
QUESTION = {"question": "why send money", "context": TEXT}
HEADERS = {"authorization": "Bearer lfl_north"}


class Passages:
    """What a server's passages do, without an index: all of them in order."""

    def __init__(self, *texts: str) -> None:
        from llmchain_fl.serve.passages import Passage

        self.held = tuple(Passage(f"p{n}", text) for n, text in enumerate(texts, 1))

    def best(self, question: str, count: int) -> list[tuple[Any, float]]:
        return [(one, 1.0) for one in self.held[:count]] if "nothing" not in question else []


def of_the_run(small: Any, opened: Any, kind: str, **told: Any) -> Any:
    work = small.work(kind, rank=2, **told)
    resident, task = open_work(work.resident, work.task)
    resident.load(opened.verified.to_load())
    return task


class Asked:
    """A service of two adapters of one kind, and the run's own task for the first."""

    def __init__(self, small: Any, tools: Any, kind: str, threshold: float = 0.0, **told: Any) -> None:
        self.opened = tools.adapters(small, 2, kind, rank=2, **told)
        self.task = of_the_run(small, self.opened[0], kind, **told)
        settings = tools.settings({"north": ["a1@1"], "south": ["a2@1"]}, bounds=Bounds(inputs=8))
        self.up = tools.running(self.opened, settings, thresholds={"a1@1": threshold})

    def __enter__(self) -> Any:
        self.service = self.up.__enter__()
        self.service.passages = Passages(TEXT, "pay the rate", TEXT[20:])
        self.client = TestClient(make_app(self.service), headers=HEADERS)
        return self

    def __exit__(self, *told: Any) -> None:
        self.up.__exit__(*told)

    def post(self, route: str, body: dict[str, Any], status: int = 200) -> Any:
        answer = self.client.post(route, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def names(small: Any, tools: Any) -> Iterator[Asked]:
    with Asked(small, tools, "token-classification", windows=6) as found:
        yield found


@pytest.fixture(scope="module")
def answers(small: Any, tools: Any) -> Iterator[Asked]:
    with Asked(small, tools, "span-qa", windows=6) as found:
        yield found


def test_the_names_of_a_text_are_those_of_the_run(names: Asked) -> None:
    texts = [TEXT, "card", "pay!", TEXT[7:60]]
    found = names.post("/v1/extract", {"input": texts})["results"]
    for text, one, ((told, chance),) in zip(texts, found, names.task.predict(texts), strict=True):
        assert one["spans"] == json.loads(told)
        assert one["probability"] == pytest.approx(chance, abs=1e-4)
        assert all(text[span["start"] : span["end"]] == span["text"] for span in one["spans"])
        assert one["abstain"] is False
    assert any(one["spans"] for one in found)


def test_names_are_the_same_alone_and_in_any_company(names: Asked) -> None:
    texts = [TEXT, "card lost", TEXT[30:], "why", TEXT[:55]]
    alone = [names.post("/v1/extract", {"input": text})["results"][0] for text in texts]
    for turned in (texts, texts[::-1], texts[2:] + texts[:2]):
        for text, one in zip(turned, names.post("/v1/extract", {"input": turned})["results"], strict=True):
            assert {**one, "index": 0} == alone[texts.index(text)]


def test_an_answer_in_a_given_text_is_that_of_the_run(answers: Asked) -> None:
    found = answers.post("/v1/answer", QUESTION)
    ((text, chance), *_) = answers.task.answer([QUESTION])[0]
    assert found["answer"].strip() == text
    assert found["probability"] == pytest.approx(chance, abs=1e-4)
    assert TEXT[found["start"] : found["end"]] == found["answer"]
    assert found["passage"] == {"id": "context", "text": TEXT}


def test_without_a_text_the_best_piece_of_the_public_passages_is_shown_with_its_passage(answers: Asked) -> None:
    found = answers.post("/v1/answer", {"question": "why pay"})
    alone = [answers.post("/v1/answer", {"question": "why pay", "context": one.text})
             for one in answers.service.passages.held]  # fmt: skip
    assert found["answer"] in [one["answer"] for one in alone]
    shown = found["passage"]
    assert shown["text"][found["start"] : found["end"]] == found["answer"]
    assert shown["text"] in [one.text for one in answers.service.passages.held]
    one = answers.post("/v1/answer", {"question": "why pay", "passages": 1})
    assert (one["answer"], one["probability"]) == (alone[0]["answer"], alone[0]["probability"])


def test_it_abstains_below_the_threshold_and_where_no_passage_has_a_word(small: Any, tools: Any) -> None:
    with Asked(small, tools, "span-qa", threshold=1.0, windows=2) as sure:
        found = sure.post("/v1/answer", QUESTION)
        assert (found["answer"], found["abstain"]) == (None, True)
        assert found["passage"]["text"] == TEXT
        assert "start" not in found
        nothing = sure.post("/v1/answer", {"question": "nothing of it"})
        assert (nothing["answer"], nothing["abstain"], nothing["passage"]) == (None, True, None)
        sure.service.passages = None
        assert sure.post("/v1/answer", {"question": "why"}, 400)["error"]["param"] == "context"
        tensor = {"name": "q", "shape": [1], "datatype": "BYTES", "data": ["why"]}
        assert "no passages" in sure.post("/v2/models/a1/infer", {"inputs": [tensor]}, 400)["error"]


def test_where_the_model_says_that_there_is_no_answer_it_abstains_and_shows_the_passage(small: Any, tools: Any) -> None:
    """Of many questions some have an answer and some none; what is served is what the run itself says."""
    words = sorted(set(TEXT.replace(",", "").split()))
    asked = [{"question": f"why {word}", "context": other} for word in words[:4] for other in words]
    with Asked(small, tools, "span-qa-or-none", windows=2) as doubting:
        found = [doubting.post("/v1/answer", row) for row in asked]
        expected = [told[0][0] for told in doubting.task.answer(asked, 1)]
        piece = doubting.task.answer(asked, 500)
    assert [(one["answer"] or "").strip() for one in found] == expected
    assert [one["abstain"] for one in found] == [not text for text in expected]
    assert 0 < sum(one["abstain"] for one in found) < len(found)
    for row, one, told in zip(asked, found, piece, strict=True):
        assert one["passage"]["text"] == row["context"]
        assert one["probability"] == (
            0.0 if one["abstain"] else pytest.approx(dict(told)[one["answer"].strip()], abs=1e-4)
        )


@pytest.mark.parametrize(("fixture", "route"), [("names", "/v1/answer"), ("answers", "/v1/extract")])
def test_a_task_of_another_kind_is_a_400_and_anothers_adapter_a_404(
    fixture: str, route: str, request: pytest.FixtureRequest
) -> None:
    asked, body = request.getfixturevalue(fixture), QUESTION if route == "/v1/answer" else {"input": "card"}
    assert asked.post(route, body, 400)["error"]["code"] == "wrong_task"
    assert asked.post("/v1/rank", {"query": "a", "candidates": ["b"]}, 400)["error"]["code"] == "wrong_task"
    for name in ("a2@1", "nobody"):
        assert asked.post(route, {**body, "model": name}, 404)["error"]["code"] == "model_not_found"


def test_the_open_inference_protocol_gives_names_and_answers_too(names: Asked, answers: Asked) -> None:
    def infer(asked: Asked, text: str) -> dict[str, Any]:
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
        told = asked.post("/v2/models/a1/infer", {"inputs": [tensor]})["outputs"]
        return {one["name"]: one["data"][0] for one in told}

    assert json.loads(infer(names, TEXT)["spans"]) == names.post("/v1/extract", {"input": TEXT})["results"][0]["spans"]
    found, own = infer(answers, "why pay"), answers.post("/v1/answer", {"question": "why pay"})
    assert (found["answer"], found["passage"]) == (own["answer"], own["passage"]["text"])


def test_candidates_are_ranked_by_the_cosine_of_their_vectors(small: Any, tools: Any) -> None:
    candidates = ["card lost", "pay the rate", "card", "card lost"]
    with Asked(small, tools, "classification") as asked:
        found = asked.post("/v1/rank", {"query": "card lost now", "candidates": candidates})["results"]
        told = asked.post("/v1/embeddings", {"input": ["card lost now", *candidates]})["data"]
        vectors = np.array([one["embedding"] for one in told])
        assert [one["score"] for one in found] == pytest.approx(
            sorted(vectors[1:] @ vectors[0], reverse=True), abs=1e-5
        )
        places = [one["index"] for one in found]
        assert places.index(0) + 1 == places.index(3), "of equals the earlier one first"
        top = asked.post("/v1/rank", {"query": "card lost now", "candidates": candidates, "top": 2})["results"]
        assert top == found[:2]
        assert asked.post("/v1/rank", {"query": "a", "candidates": ["b"], "label": "rates"}, 400)
        assert asked.post("/v1/rank", {"query": "a", "candidates": []}, 400)["error"]["param"] == "candidates"


def test_pairs_are_ranked_by_the_chance_of_a_label_as_the_run_gives_it(small: Any, tools: Any) -> None:
    candidates = ["card lost", TEXT, "rate", "pay"]
    with Asked(small, tools, "pair-classification") as asked:
        label = list(small.labels)[1]
        found = asked.post("/v1/rank", {"query": "why card", "candidates": candidates, "label": label})["results"]
        rows = [{"text": "why card", "text2": one} for one in candidates]
        expected = [dict(told)[label] for told in asked.task.answer(rows, top=len(small.labels))]
        assert {one["index"]: one["score"] for one in found} == pytest.approx(dict(enumerate(expected)), abs=1e-4)
        assert found == sorted(found, key=lambda one: (-one["score"], one["index"]))
        for place, one in enumerate(candidates):
            (alone,) = asked.post("/v1/rank", {"query": "why card", "candidates": [one], "label": label})["results"]
            assert alone["score"] == next(told["score"] for told in found if told["index"] == place)
        assert asked.post("/v1/classify", {"input": "card"}, 400)["error"]["code"] == "wrong_task"
