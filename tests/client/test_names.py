"""Names on the wire: one pattern for all of them, asked before anything else, and no line of a log can be forged."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.app import do_train
from client.check import check_train
from client.outbox import describe
from client.scores import check_score, do_score
from client.site import Site, SiteData
from llmchain_fl.core.errors import LlmchainError, WireError
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.replies import Refusal, read_reply
from llmchain_fl.requests import write_score_task

HOSTILE = {
    "a line break": "a\nepsilon 0.00",
    "a line break at the end": "a\n",
    "a carriage return": "a\rb",
    "an escape": "a\x1b[2Jb",
    "a NUL": "a\x00b",
    "a bell": "\x07",
    "a C1 control": "a\x9bb",
    "right to left": "a\u202eb",
    "an isolate": "a\u2066b",
    "a line separator": "a\u2028b",
    "a zero width space": "a\u200bb",
    "another alphabet": "\u0430",
    "a full width letter": "\uff41",
    "half a pair": "\ud800",
    "65 characters": "a" * 65,
    "a path": "../a",
    "a folder": "a/b",
    "a dot": ".",
    "two dots": "..",
    "a brace": "{stage}",
    "a percent": "%s",
}
SITE = Site(name="s", data=SiteData(train="x"))


def train(**changes: Any) -> None:
    told: dict[str, Any] = {"run": "r", "round": 1, "stage": 0, "stage_name": "s", "lr": 0.1, "work": "", "arrays": {}}
    check_train(SITE, TrainTask(**{**told, **changes}))


def score(**changes: Any) -> None:
    told: dict[str, Any] = {"round": 1, "stages": ("s",), "work": "", "arrays": {}, "run": "r"}
    check_score(SITE, ScoreTask(**{**told, **changes}))


ASKS = {
    "the run": lambda name: train(run=name),
    "the run of scores": lambda name: score(run=name),
    "the stage": lambda name: train(stage_name=name),
    "an earlier stage": lambda name: train(earlier=("good", name)),
    "a stage that is scored": lambda name: score(stages=("good", name)),
    "the federation": lambda name: train(federation=name),
    "the federation of scores": lambda name: score(federation=name),
}


@pytest.mark.parametrize("where", ASKS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_name_that_is_none_is_refused_in_words_that_do_not_quote_it(where: str, kind: str) -> None:
    if "federation" in where and kind in ("a dot", "two dots"):
        ASKS[where](HOSTILE[kind])  # it is no path
        return
    with pytest.raises(WireError) as caught:
        ASKS[where](HOSTILE[kind])
    assert HOSTILE[kind] not in str(caught.value) or kind in ("a dot", "two dots")


@pytest.mark.parametrize("where", ASKS)
@pytest.mark.parametrize("name", ["a", "A-1_b.c", "0", "a" * 64, "discharge-notes_2024.v2"])
def test_an_ordinary_name_is_one(where: str, name: str) -> None:
    ASKS[where](name)


def test_a_federation_may_have_blanks_or_no_name() -> None:
    train(federation="North West 1.0")
    train(federation="")
    with pytest.raises(WireError):
        train(run="")
    with pytest.raises(WireError):
        train(run="a b")


@settings(max_examples=300)
@given(st.text(max_size=80))
def test_whatever_passes_can_stand_in_a_path_and_on_a_line(name: str) -> None:
    for where, ask in ASKS.items():
        try:
            ask(name)
        except WireError:
            continue
        assert name.isascii()
        assert name.isprintable()
        assert len(name) <= 64
        assert "/" not in name
        if "federation" not in where and where != "the run of scores":
            assert name not in ("", ".", "..")


@pytest.mark.parametrize(
    "changes", [{"run": "a\nb"}, {"stage_name": "a\nb"}, {"federation": "a\x1bb"}, {"earlier": ("a\u202e",)}]
)
def test_it_is_refused_before_records_ledger_or_model(
    ward: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    places = ("site_records", "has_records")
    for place in (
        "client.opening.open_work",
        *(f"client.{room}.{name}" for room in ("app", "scores") for name in places),
    ):
        monkeypatch.setattr(place, lambda *_: pytest.fail("it went on"))
    assert read_reply(ward.train(ward.work(), **changes)) == Refusal("wire")
    told = {name: value for name, value in changes.items() if name in ("run", "federation")}
    ward.limits = ward.limits.model_copy(update={"scores": "noised"})
    if told:
        work = replace(ward.work(), plan=ward.small.plan(unit="person", score_noise=2.0))
        assert read_reply(ward.score(work, **told)) == Refusal("wire")
    assert ward.booked() == []


# -- the site's own log ------------------------------------------------------------------------------------------------

FORGED = "x\nWARNING  epsilon 0.00\x1b[2J\r\u202e"


def forged(ward: Any) -> dict[str, Any]:
    """Tasks in which every text that is no name carries a forged line."""
    work, start, plain = ward.work(), ward.start(ward.work()), ward.task(ward.work())
    guard = GuardSpec(FORGED, ((FORGED, 1.0),))

    def task(work: Any, /, **changes: Any) -> TrainTask:
        return replace(plain, **{"work": work.to_json(), **changes})

    return {
        "an array": task(work, arrays={**start, f"{FORGED}.lora_B": np.zeros((2, 2), np.float32)}),
        "a folded array": task(work, arrays={**start, f"{FORGED}.fold_A": np.zeros((2, 2), np.float32)}),
        "a guard's array": task(work, guard_arrays={FORGED: np.zeros(2, np.float32)}),
        "a guard": task(replace(work, guards=(guard,))),
        "an optimizer": task(replace(work, train=replace(work.train, optimizer=FORGED))),
        "a base": task(replace(work, base=replace(work.base, path=f"./{FORGED}"))),
        "a revision": task(replace(work, base=replace(work.base, revision=FORGED))),
        "a target": task(replace(work, adapter=replace(work.adapter, targets=(FORGED,)))),
        "a factor": task(replace(work, adapter=replace(work.adapter, trained=(FORGED,)))),
        "a trained factor": task(work, trains=(FORGED,)),
        "a label": task(replace(work, task=replace(work.task, labels=((FORGED, FORGED),)))),
        "a pooling": task(replace(work, task=replace(work.task, pooling=FORGED))),
        "a stage's labels": task(replace(work, task=replace(work.task, candidate_labels=((FORGED, (9,)),)))),
        "a receipt": task(work, receipt=FORGED),
        "work": task(work, work=FORGED),
    }


KINDS = [
    *("an array", "a folded array", "a guard's array", "a guard", "an optimizer", "a base", "a revision", "a target"),
    *("a factor", "a trained factor", "a label", "a pooling", "a stage's labels", "a receipt", "work"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_of_a_task_can_forge_a_line_of_the_sites_log(
    ward: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ward.write("cards.jsonl", [{"text": "card", "label": "rates"}])
    told = forged(ward)
    assert list(told) == KINDS
    with caplog.at_level(logging.DEBUG, logger="llmchain_fl"):
        try:
            do_train(ward.site, told[kind], {}, None)
        except LlmchainError as error:
            logging.getLogger("llmchain_fl.client").error("refused: %s", describe(error))
    for record in caplog.records:
        for line in record.getMessage().split("\n"):
            assert line.isprintable(), record
            assert not line.startswith("WARNING")


def test_a_score_task_is_asked_the_same(ward: Any) -> None:
    ward.limits = ward.limits.model_copy(update={"scores": "exact"})
    task = ScoreTask(1, ("a\nb",), ward.work().to_json(), {}, run="r")
    with pytest.raises(WireError):
        do_score(ward.site, write_score_task(task), {})
