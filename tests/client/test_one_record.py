"""One odd record says nothing: no code word, no line of the ledger and no bit of a neighbour depends on it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import client.scores
from client.site import SiteLimits
from llmchain_fl.core.adapter.digest import digest
from llmchain_fl.core.errors import DataError
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.replies import Refusal, Scores, Update, read_reply

SECRET = "hiv-positive"
GOOD = {"text": "lost card", "label": "rates", "person": "ann"}
ODD: dict[str, str | bytes] = {
    "a foreign label": json.dumps({**GOOD, "label": SECRET}),
    "no label": json.dumps({"text": SECRET, "person": "bob"}),
    "no person": json.dumps({"text": SECRET, "label": "rates"}),
    "an empty person": json.dumps({**GOOD, "text": SECRET, "person": "  "}),
    "an empty text": json.dumps({**GOOD, "text": "", "person": SECRET}),
    "a broken line": f'{{"text": "{SECRET}',
    "a number for a line": "17",
    "a list for a text": json.dumps({**GOOD, "text": [SECRET]}),
    "bytes that are no text": b'{"text": "' + SECRET.encode() + b'\xff\xfe", "label": "rates", "person": "bob"}',
    "a deep value": '{"text": ' + "[" * 3000 + "]" * 3000 + "}",
    "a number of 5,000 digits": '{"text": ' + "9" * 5000 + ', "label": "rates", "person": "bob"}',
    "a very long text": json.dumps({**GOOD, "text": "card " * 5000, "person": "bob"}),
    "a NUL in a text": json.dumps({**GOOD, "text": f"{SECRET}\x00", "person": "bob"}),
    "somebody new": json.dumps({**GOOD, "person": SECRET}),
    "64 records of somebody": "\n".join([json.dumps({**GOOD, "person": SECRET})] * 64),
}


def person_work(ward: Any, **changes: Any) -> Any:
    return replace(ward.person_work(score_noise=5.0), **changes)


def changed(part: str, **changes: Any) -> Callable[[Any], Any]:
    """Work with other fields in one of its parts."""
    return lambda work: replace(work, **{part: replace(getattr(work, part), **changes)})


def trained(change: Callable[[Any], Any] = lambda work: work, **told: Any) -> Callable[[Any], Any]:
    """Ask for a round."""

    def ask(ward: Any) -> Any:
        named = {name: value(ward) if callable(value) else value for name, value in told.items()}
        return ward.train(change(person_work(ward)), **named)

    return ask


def few(ward: Any) -> Any:
    """Ask a site that cannot pay."""
    ward.limits = SiteLimits(epsilon=0.01)
    return ward.train(person_work(ward))


def scored(ward: Any) -> Any:
    """Ask for noised scores."""
    ward.limits = SiteLimits(epsilon=60.0, scores="noised")
    return ward.score(person_work(ward))


WITHOUT = changed("task", labels=(("lost_card", "card"), ("other", "why")))
TASKS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "one that fits": ("update", trained()),
    "a label list that lacks labels of the site": ("update", trained(WITHOUT)),
    "disjoint stages": ("update", trained(changed("plan", stages="disjoint"))),
    "one that costs too much": ("budget", few),
    "hardly any noise": ("budget", trained(changed("plan", noise_multiplier=1e-3))),
    "more steps than are paid for": ("privacy", trained(changed("train", steps=9))),
    "an unpaid rehearsal": (
        "privacy",
        trained(lambda w: replace(w, guards=(GuardSpec("rehearsal", (("keep", 1.0),)),))),
    ),
    "longer texts than the base reads": ("model", trained(changed("task", max_tokens=49))),
    "arrays of another shape": ("model", trained(arrays=lambda w: {n: v[:1] for n, v in w.start(w.work()).items()})),
    "arrays that are not finite": (
        "wire",
        trained(arrays=lambda w: {n: np.full_like(v, np.nan) for n, v in w.start(w.work()).items()}),
    ),
    "no learning rate": ("wire", trained(lr=float("nan"))),
    "a stage without records": ("data", trained(stage_name="loans")),
    "noised scores": ("scores", scored),
}


def answer(ward: Any, ask: Callable[[Any], Any]) -> tuple[str, list[str], list[Any]]:
    """(code or kind of the reply, lines of the ledger, charges)."""
    reply = read_reply(ask(ward))
    word = {Update: "update", Scores: "scores"}.get(type(reply)) or reply.code
    return word, ward.booked(), ward.reserved()


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.part(2)
def test_the_answer_and_the_ledger_do_not_tell_whether_an_odd_record_is_there(
    small: Any, tmp_path: Any, ward: Any, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    expected, ask = TASKS[name]
    others = [json.dumps(row) for row in ward.people("ann", "eve", "dan", "ann")]
    found = {}
    for kind, odd in {"nothing odd": None, **ODD}.items():
        own = type(ward)(small, tmp_path / str(len(found)))
        for file in ("cards.jsonl", "cards.held_out.jsonl"):
            lines = [line.encode() for line in others]
            if odd is not None:
                lines.insert(2, odd.encode() if isinstance(odd, str) else odd)
            (own.folder / file).write_bytes(b"\n".join(lines) + b"\n")
        with caplog.at_level(logging.DEBUG):
            found[kind] = answer(own, ask)
    assert found["nothing odd"][0] == expected
    assert {kind: told for kind, told in found.items() if told != found["nothing odd"]} == {}
    assert SECRET not in caplog.text


@pytest.mark.parametrize("rows", [b"", b"\n\n", b"17\n", b'{"text": "x", "label": "unheard", "person": "ann"}\n'])
@pytest.mark.parametrize("name", ["one that fits", "one that costs too much", "noised scores"])
def test_a_file_without_a_record_that_fits_is_answered_like_any_other(ward: Any, name: str, rows: bytes) -> None:
    expected, ask = TASKS[name]
    for file in ("cards.jsonl", "cards.held_out.jsonl"):
        (ward.folder / file).write_bytes(rows)
    assert answer(ward, ask)[0] == expected


# -- records that the base cannot compute -----------------------------------------------------------------------------


def poisoned(monkeypatch: pytest.MonkeyPatch, ids: list[int]) -> None:
    """Records that say ``ODD_TEXT`` come out of the tokenizer as ``ids``; no noise."""
    plain = Classification.encode

    def encode(self: Any, rows: Any) -> Any:
        found = plain(self, rows)
        for place, row in enumerate(rows):
            if row["text"] == ODD_TEXT:
                found.ids[place] = np.array(ids, dtype=np.int64)
        return found

    monkeypatch.setattr(Classification, "encode", encode)
    monkeypatch.setattr(SecureNoise, "added", lambda self, values, std: values.float())


ODD_TEXT = "pin pin pin"
UNREADABLE = {"an id beyond the embedding": [1, 10**6, 2], "longer than the positions": [5] * 49, "a negative id": [-3]}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("rows", [1, 4])
def test_a_record_that_cannot_be_computed_counts_as_zero_and_changes_no_bit_of_the_others(
    small: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, ward: Any, caplog: Any, name: str, rows: int
) -> None:
    """It made the site answer ``error`` in just the rounds that drew it, and the round was paid for."""
    poisoned(monkeypatch, UNREADABLE[name])
    monkeypatch.setattr("client.steady.ON_CPU", rows)
    people = [{**GOOD, "text": "card " * n, "person": f"p{n}"} for n in range(1, 8)]
    found = []
    for odd in ([], [{**GOOD, "text": ODD_TEXT, "person": "bob"}]):
        own = type(ward)(small, tmp_path / str(len(found)))
        own.write("cards.jsonl", people[:3] + odd + people[3:])
        work = own.person_work()
        reply = read_reply(own.train(replace(work, train=replace(work.train, optimizer="sgd", momentum=0.0))))
        assert isinstance(reply, Update), reply
        found.append((digest(reply.arrays), own.booked(), own.watched[-1][2].unusable))
    assert found[0][:2] == found[1][:2]
    assert (found[0][2], found[1][2]) == (0.0, 1 / 8)
    assert "12.5 % of the drawn units could not be computed and counted as zero" in caplog.text


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_record_that_cannot_be_scored_is_in_no_score(
    hospital: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    poisoned(monkeypatch, UNREADABLE[name])
    rows = hospital.people("kim", "lea", "mia")
    work, seen = hospital.person_work(score_noise=5.0), []
    plain = client.scores.noised_mean
    monkeypatch.setattr("client.scores.noised_mean", lambda values, *told: seen.append(values) or plain(values, *told))
    found = []
    for number, odd in enumerate(([], [{**GOOD, "text": ODD_TEXT, "person": "bob"}])):
        hospital.write("cards.held_out.jsonl", [*odd, *rows])
        hospital.restart()
        found.append(read_reply(hospital.score(work, round=number)).values["cards"])
    assert found[0] == found[1]
    assert [np.isfinite(values).tolist() for values in seen] == [[True] * 3, [False, True, True, True]]


def test_without_privacy_such_a_record_is_an_error_that_says_where(ward: Any) -> None:
    ward.limits = SiteLimits(require_privacy=False)
    ward.write("cards.jsonl", [{"text": "x", "label": SECRET}])
    assert read_reply(ward.train(ward.work(private=False))) == Refusal(DataError.code)
