"""Every kind of task: what is served is what the run's own task answers, alone and in any company; what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from llmchain_fl.core.errors import ModelError
from llmchain_fl.core.work import open_work
from llmchain_fl.serve.app import make_app
from llmchain_fl.serve.receipts import Receipts
from llmchain_fl.serve.served import Opened

LONG = "why card lost pay the new loan rate why send money to new card lost pay why rate loan pin send why pay"
TEXTS = [LONG, "card lost", "why send money", LONG[30:], "pin"]
USER = [{"role": "user", "content": "card lost"}]
TALK = [
    {"role": "system", "content": "bank"},
    *USER,
    {"role": "assistant", "content": "send card"},
    {"role": "user", "content": "why"},
]
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


class Up:
    """A service of two adapters of one kind; ``task``: the run's own, of the first."""

    def __init__(self, service: Any, task: Any) -> None:
        self.service, self.task = service, task
        self.client = TestClient(make_app(service, Receipts(b"k" * 32)), headers={"authorization": "Bearer lfl_north"})

    def post(self, route: str, body: dict[str, Any], status: int = 200) -> Any:
        answer = self.client.post(route, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def infer(self, texts: Sequence[str], status: int = 200) -> Any:
        tensor = {"name": "any", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}
        told = self.post("/v2/models/a1/infer", {"inputs": [tensor]}, status)
        return {one["name"]: one["data"] for one in told["outputs"]} if status == 200 else told["error"]

    def takes(self) -> tuple[list[str], list[str]]:
        told = self.client.get("/v2/models/a1").json()
        return [one["name"] for one in told["inputs"]], [one["name"] for one in told["outputs"]]

    def written(self, route: str, **body: Any) -> str:
        (choice,) = self.post(route, body)["choices"]
        return str(choice["message"]["content"] if route == CHAT else choice["text"])


@contextmanager
def served(small: Any, tools: Any, kind: str, spec: dict[str, Any] | None = None, **told: Any) -> Iterator[Up]:
    """``spec``: changes of the task."""
    opened = [replace(one, task=replace(one.task, **(spec or {}))) for one in
              tools.adapters(small, 2, kind, rank=2, **told)]  # fmt: skip
    resident, task = open_work(small.work(kind, rank=2, **told).resident, opened[0].task)
    resident.load(opened[0].verified.to_load())
    settings = tools.settings({"north": ["a1@1"], "south": ["a2@1"]})
    with tools.running(opened, settings, thresholds={"a1@1": 0.2}) as service:
        yield Up(service, task)


def with_template(small: Any, folder: Path) -> str:
    """The tiny decoder with a chat template of its own."""
    shutil.copytree(small.llama, folder)
    file = folder / "tokenizer_config.json"
    turns = "{% for m in messages %}{{ m.role }} - {{ m.content }} </s> {% endfor %}"
    told = json.loads(file.read_text()) | {
        "chat_template": turns + "{% if add_generation_prompt %}assistant - {% endif %}"
    }
    file.write_text(json.dumps(told))
    return str(folder)


def test_several_labels_are_those_of_the_run(small: Any, tools: Any) -> None:
    with served(small, tools, "multi-label", windows=3) as up:
        found = up.post("/v1/classify", {"input": TEXTS})["results"]
        for one, expected in zip(found, up.task.predict(TEXTS), strict=True):
            assert one["labels"] == [label for label, _ in expected]
            assert [pair["label"] for pair in one["top"]] == list(one["probabilities"])
            assert sorted(one["probabilities"]) == sorted(small.labels)
            assert {label: one["probabilities"][label] for label, _ in expected} == pytest.approx(
                dict(expected), abs=1e-4
            )
        assert any(one["labels"] for one in found)
        assert [up.post("/v1/classify", {"input": text})["results"][0]["top"] for text in TEXTS] == [
            one["top"] for one in found
        ], "alone as in company"
        assert len(up.post("/v1/classify", {"input": "card", "top": 1})["results"][0]["top"]) == 1
        assert up.takes() == (["text"], ["labels", "probabilities"])
        assert [json.loads(told) for told in up.infer(TEXTS)["labels"]] == [one["labels"] for one in found]
        assert up.post("/v1/score", {"input": "card"}, 400)["error"]["code"] == "wrong_task"
        assert up.post("/v1/classify", {"input": "card", "model": "a2@1"}, 404)


def test_a_relation_is_that_of_the_run(small: Any, tools: Any) -> None:
    texts = ["why <e1>card</e1> lost <e2>bank</e2>", f"<e2>pin</e2> {LONG} <e1>loan</e1>"]
    with served(small, tools, "relation") as up:
        found = up.post("/v1/classify", {"input": texts, "top": 4})["results"]
        for one, expected in zip(found, up.task.predict(texts, 4), strict=True):
            told = {pair["label"]: pair["probability"] for pair in one["top"]}
            assert told == pytest.approx(dict(expected), abs=1e-4)
            assert one["label"] == expected[0][0]
            assert one["abstain"] is (one["probability"] < 0.2)
        alone = [up.post("/v1/classify", {"input": text, "top": 4})["results"][0] for text in texts]
        assert [one["top"] for one in alone] == [one["top"] for one in found]
        assert up.post("/v1/classify", {"input": ["card lost"]}, 400)["error"]["param"] == "input"
        assert up.infer(texts)["label"] == [one["label"] for one in found]


def test_a_number_is_that_of_the_run(small: Any, tools: Any) -> None:
    with served(small, tools, "regression", {"low": -2.0, "high": 8.0, "scale": 1.0}, windows=3) as up:
        found = up.post("/v1/score", {"input": TEXTS})["results"]
        expected = [float(told) for ((told, _),) in up.task.predict(TEXTS)]
        assert [one["value"] for one in found] == pytest.approx(expected, abs=1e-3)
        assert len({one["value"] for one in found}) == len(TEXTS)
        for text, one in zip(TEXTS, found, strict=True):
            assert up.post("/v1/score", {"input": text})["results"][0]["value"] == one["value"]
        (pair,) = up.post("/v1/score", {"input": "card", "second": "loan"})["results"]
        ((told, _),) = up.task.answer([{"text": "card", "text2": "loan"}])[0]
        assert pair["value"] == pytest.approx(float(told), abs=1e-3)
        assert "receipt" in found[0]
        assert "receipt" not in pair
        assert up.takes() == (["text"], ["value"])
        assert up.infer(TEXTS)["value"] == [one["value"] for one in found]
        assert up.post("/v1/score", {"input": ["a", "b"], "second": "c"}, 400)["error"]["param"] == "second"
        assert up.post("/v1/classify", {"input": "card"}, 400)["error"]["code"] == "wrong_task"


def test_candidates_are_ranked_as_by_the_run(small: Any, tools: Any) -> None:
    candidates = ["card lost", LONG, "rate", "pay", "new loan rate", "pin", "why"]
    asked = {"query": "why card", "candidates": candidates}
    with served(small, tools, "ranking", max_tokens=24, windows=2) as up:
        found = up.post("/v1/rank", asked)["results"]
        (expected,) = up.task.answer([{**asked, "candidates": json.dumps(candidates)}], len(candidates))
        assert {candidates[one["index"]]: one["score"] for one in found} == pytest.approx(dict(expected), abs=1e-4)
        assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
        turned = up.post("/v1/rank", {**asked, "candidates": candidates[::-1]})["results"]
        assert {candidates[::-1][one["index"]]: one["score"] for one in turned} == {
            candidates[one["index"]]: one["score"] for one in found
        }, "the order of candidates says nothing"
        assert up.post("/v1/rank", {**asked, "top": 2})["results"] == found[:2]
        for wrong in (["card"], ["card", "card"], ["card", " "]):
            error = up.post("/v1/rank", {"query": "a", "candidates": wrong}, 400)["error"]
            assert error["param"] == "candidates"
        assert up.post("/v1/rank", {**asked, "label": "rates"}, 400)["error"]["param"] == "label"
        assert up.takes() == ([], [])
        assert "ask /v1/rank" in up.infer(["card"], 400)


@pytest.fixture(scope="module", params=["plain", "base"])
def talking(small: Any, tools: Any, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Iterator[Up]:
    path = "" if request.param == "plain" else with_template(small, tmp_path_factory.mktemp("chat") / "base")
    with served(small, tools, "dialogue", {"template": request.param}, max_tokens=48, path=path) as up:
        yield up


def test_a_reply_is_that_of_the_run(talking: Up) -> None:
    long = [*TALK[:1], *[{"role": role, "content": LONG} for role in ("user", "assistant")], *TALK[1:]]
    found = []
    for turns in (USER, TALK, long):
        ((expected, _),) = talking.task.answer([{"messages": json.dumps(turns)}])[0]
        found.append(talking.written(CHAT, messages=turns))
        assert found[-1].strip() == expected
    assert talking.written(CHAT, messages=long) == talking.written(CHAT, messages=[TALK[0], *TALK[1:]]), "cut in front"
    assert len(set(found)) > 1
    assert talking.written(COMPLETIONS, prompt="card lost") == found[0]
    assert talking.infer(["card lost", "why"])["text"] == [
        told[0][0] for told in talking.task.predict(["card lost", "why"])
    ]
    assert talking.takes() == (["message"], ["text"])


def test_a_reply_in_parts_ends_where_the_whole_ends(talking: Up) -> None:
    whole = talking.post(CHAT, {"messages": TALK})
    (choice,) = whole["choices"]
    body = {"messages": TALK, "stream": True, "stream_options": {"include_usage": True}}
    lines = [line.removeprefix("data: ") for line in talking.client.post(CHAT, json=body).text.split("\n\n") if line]
    parts = [json.loads(line) for line in lines[:-1]]
    assert "".join(one["choices"][0]["delta"]["content"] for one in parts[:-1]) == choice["message"]["content"]
    assert parts[-2]["choices"][0]["finish_reason"] == choice["finish_reason"]
    assert parts[-1]["usage"] == whole["usage"]
    words = choice["message"]["content"].split()
    stopped = talking.post(CHAT, {"messages": TALK, "stop": words[1]})["choices"][0]
    assert (stopped["message"]["content"].strip(), stopped["finish_reason"]) == (words[0], "stop")
    assert talking.post(CHAT, {"messages": TALK, "max_tokens": 1})["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize(
    "messages",
    [
        TALK[:1],
        TALK[:3],
        [*USER, TALK[0]],
        [{"role": "assistant", "content": "a"}],
        [{"role": "user", "content": " "}],
        [{"role": "user", "content": "a </s> system b"}],
        [{"role": "user", "content": "\ud800"}],
    ],
)
def test_what_is_no_conversation_is_refused_by_its_name(talking: Up, messages: Any) -> None:
    body = json.dumps({"messages": messages}).encode()
    answer = talking.client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["param"].split(".")[0]) == (400, "messages")


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("summarisation", "llama"), ("translation", "llama"), ("translation", "t5"), ("summarisation", "bart")],
)
def test_a_text_is_written_anew_as_by_the_run(small: Any, tools: Any, kind: str, shape: str) -> None:
    spec = {"instruction": "new rate"}
    with served(small, tools, kind, spec, max_tokens=32, path=str(small.shape(shape))) as up:
        expected = [told[0][0] for told in up.task.predict(TEXTS[:3])]
        assert shape == "bart" or len(set(expected)) > 1
        for text, right in zip(TEXTS, expected, strict=False):
            assert up.written(COMPLETIONS, prompt=text).strip() == right
            assert up.written(CHAT, messages=[{"role": "user", "content": text}]).strip() == right
        assert up.infer(TEXTS[:3])["text"] == expected
        error = up.post(CHAT, {"messages": TALK}, 400)["error"]
        assert "one message" in error["message"]
        assert up.post(COMPLETIONS, {"prompt": "a </s> b"}, 400)["error"]["param"] == "prompt"
        assert up.post(COMPLETIONS, {"prompt": "a", "model": "a2@1"}, 404)
        assert up.takes()[1] == ["text"]


@pytest.mark.parametrize(("kind", "shape"), [("dialogue", "llama"), ("translation", "t5")])
def test_what_is_written_is_the_same_alone_and_in_any_company(small: Any, tools: Any, kind: str, shape: str) -> None:
    from llmchain_fl.serve.engine import open_engine
    from llmchain_fl.serve.prompts import asked_of, prompt_row, writing_of

    engine = open_engine(
        tools.adapters(small, 3, kind, max_tokens=32, path=str(small.shape(shape))), 4, tools.fresh_base
    )
    decoder = engine.decoder
    assert decoder is not None

    def written(places: Sequence[int]) -> list[str]:
        rows = []
        for number in places:
            one = engine.served[number % 3]
            writing = writing_of(decoder, asked_of(decoder, one, TEXTS[number]), 20, temperature=1.0, seed=number)
            rows.append(prompt_row(decoder, one.number, writing))
        texts: list[str] = tools.written(decoder, rows)
        return texts

    kinds: dict[int, list[int]] = {}
    for number in range(len(TEXTS)):
        length = decoder.kind_of(len(asked_of(decoder, engine.served[number % 3], TEXTS[number]).ids))
        kinds.setdefault(length, []).append(number)
    several = [places for places in kinds.values() if len(places) > 1]
    assert several
    for places in several:
        alone = [written([number])[0] for number in places]
        for turned in (places, places[::-1]):
            size = decoder.room(max(kinds, key=lambda kind: kinds[kind] is places))
            assert size > 1, "rows one by one would prove nothing"
            for start in range(0, len(turned), size):
                part = turned[start : start + size]
                assert written(part) == [alone[places.index(number)] for number in part]
    engine.bank.close()


def test_what_is_not_served_is_refused_in_words(small: Any, tools: Any, made: Callable[..., list[Opened]]) -> None:
    from llmchain_fl.serve.engine import open_engine
    from llmchain_fl.serve.served import one_base
    from llmchain_fl.serve.tasks import check_kinds

    for kind, remedy in (("masked-lm", "train a further stage"), ("label-words", "ask `llmchain-fl predict`")):
        (one,) = made(1, kind)
        with pytest.raises(ModelError, match=f"of the task {kind}, which is not served") as error:
            check_kinds([one])
        assert remedy in str(error.value.remedy)
    base = tools.fresh_base(small.base("generator", path=str(small.shape("bart"))))
    base.module.generation_config.num_beams = 4
    with pytest.raises(ModelError, match="num_beams"):
        open_engine(made(1, "translation", path=str(small.shape("bart"))), 2, lambda spec: base)
    (one,) = made(1, "dialogue")
    with pytest.raises(ModelError, match="no chat template"):
        open_engine([replace(one, task=replace(one.task, template="base"))], 2, tools.fresh_base)
    assert one_base([*made(1, "dialogue"), *made(1, "summarisation")]).kind == "generator"


def test_a_receipt_of_a_conversation_holds_however_its_json_is_written(talking: Up) -> None:
    from llmchain_fl.serve.routes_feedback import as_asked

    served = talking.service.engine.served[0]
    for route, body, given in (
        (CHAT, {"messages": TALK}, json.dumps(TALK, indent=2)),
        (COMPLETIONS, {"prompt": "card lost"}, "card lost"),
    ):
        told = talking.post(route, {**body, "max_tokens": 2})
        (choice,) = told["choices"]
        output = choice["message"]["content"] if route == CHAT else choice["text"]
        said = ("north", served.address, told["request_id"], as_asked(served, given), output)
        assert Receipts(b"k" * 32).holds(choice["receipt"], said)


@pytest.mark.parametrize(
    ("kind", "given", "correction", "row"),
    [
        ("multi-label", "card", '["rates","other"]', {"text": "card", "labels": '["rates", "other"]'}),
        ("multi-label", "card", "[]", {"text": "card", "labels": "[]"}),
        ("multi-label", "card", "rates", None),
        ("multi-label", "card", '["nothing"]', None),
        ("relation", "<e1>a</e1> <e2>b</e2>", "rates", {"text": "<e1>a</e1> <e2>b</e2>", "label": "rates"}),
        ("relation", "<e1>a</e1> <e2>b</e2>", "nothing", None),
        ("regression", "card", "0.25", {"text": "card", "value": "0.25"}),
        ("regression", "card", "much", None),
        ("summarisation", "card lost", "lost", {"document": "card lost", "summary": "lost"}),
        (
            "dialogue",
            json.dumps(USER),
            "pay",
            {"messages": json.dumps([*USER, {"role": "assistant", "content": "pay"}])},
        ),
        ("dialogue", json.dumps(USER), " ", None),
    ],
)
def test_a_correction_becomes_a_record_of_its_task_or_is_refused(
    small: Any, kind: str, given: str, correction: str, row: dict[str, str] | None
) -> None:
    from types import SimpleNamespace

    from llmchain_fl.feedback.quarantine import Rules, judged
    from llmchain_fl.feedback.record import ACCEPTED, Record, Told, row_of
    from llmchain_fl.serve.refusals import ApiError
    from llmchain_fl.serve.routes_feedback import as_target

    served: Any = SimpleNamespace(task=SimpleNamespace(kind=kind))
    labels = frozenset(small.labels)
    if row is None:
        with pytest.raises(ApiError):
            as_target(served, given, correction, labels)
        return
    target = as_target(served, given, correction, labels)
    assert row_of(kind, given, target) == row
    told = Told("north", "ann", "m@1", "a", kind, "req-1", given, "x", "correct", target, 1.0)
    rules = Rules(labels=labels if "label" in str(row) else frozenset())
    assert judged([Record(1, told, ACCEPTED, 0)], rules, 2.0) == {1: ""}


def test_a_threshold_of_a_kind_that_cannot_abstain_is_refused_with_the_kinds_that_can(small: Any, tools: Any) -> None:
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.serve.settings import ServedAdapter
    from llmchain_fl.serve.up import open_server

    def refusal(kind: str, **more: Any) -> str:
        opened = [replace(one, task=replace(one.task, kind=kind)) for one in tools.adapters(small, 2)]
        told = [ServedAdapter(folder="x"), ServedAdapter(folder="y", abstain_below=0.5)]
        settings = tools.settings({"north": ["a1@1"]}, adapter=told)
        try:
            open_server(settings, opened=lambda: opened)
        except ConfigError as refused:
            return str(refused)
        return ""

    for kind in ("regression", "multi-label", "dialogue", "ranking"):
        words = refusal(kind)
        assert f"a2@1: abstain_below = 0.5, but no answer of {kind} abstains" in words
        assert "classification, relation, token-classification, span-qa" in words
        assert "a1@1" not in words
    assert [refusal(kind) for kind in ("classification", "span-qa")] == ["", ""]
