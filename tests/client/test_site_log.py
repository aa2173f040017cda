"""What a site tells its own people: who is left out, what could not be computed, when it stops. Never a record."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from client.site import SiteLimits
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.replies import Refusal, Update, read_reply

SPOILT = "pin pin pin"


def say(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Lines since the last time."""
    found = [record.getMessage() for record in caplog.records if record.name.startswith("llmchain_fl")]
    caplog.clear()
    return found


@pytest.fixture
def spoiling(ward: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ten persons, of whom those that say ``SPOILT`` cannot be computed."""
    plain = Classification.encode

    def encode(self: Any, rows: Any) -> Any:
        found = plain(self, rows)
        for place, row in enumerate(rows):
            if row["text"] == SPOILT:
                found.ids[place] = np.array([10**6], dtype=np.int64)
        return found

    monkeypatch.setattr(Classification, "encode", encode)
    ward.limits = SiteLimits(epsilon=60.0)
    return ward


def people(count: int, spoilt: int) -> list[dict[str, str]]:
    texts = [SPOILT] * spoilt + ["lost card"] * (count - spoilt)
    return [{"text": text, "label": "rates", "person": f"p{i}"} for i, text in enumerate(texts)]


@pytest.mark.parametrize(("spoilt", "told"), [(0, ""), (1, "10.0 %"), (9, "90.0 %")])
def test_the_share_that_could_not_be_computed_is_told_and_never_sent(
    spoiling: Any, caplog: pytest.LogCaptureFixture, wire_bytes: Any, spoilt: int, told: str
) -> None:
    spoiling.write("cards.jsonl", people(10, spoilt))
    with caplog.at_level(logging.DEBUG):
        content = spoiling.train(spoiling.person_work())
    lines = [line for line in say(caplog) if "could not be computed" in line]
    assert len(lines) == int(spoilt > 0)
    assert all(told in line and "the round is paid for" in line for line in lines)
    assert set(dict(content.config_records["config"])) == {"round", "version", "receipt"}


@pytest.mark.parametrize(
    ("stop", "spoilt", "stops"), [(0.2, 3, True), (0.2, 2, False), (0.0, 10, False), (1.0, 10, False)]
)
def test_a_run_of_which_too_little_can_be_computed_is_stopped_if_the_policy_says_so(
    spoiling: Any, caplog: pytest.LogCaptureFixture, stop: float, spoilt: int, stops: bool
) -> None:
    """The round itself is sealed and sent: only the next one is refused, and for free."""
    spoiling.limits = SiteLimits(epsilon=60.0, stop_unusable=stop)
    spoiling.write("cards.jsonl", people(10, spoilt))
    work = spoiling.person_work()
    first = read_reply(spoiling.train(work))
    assert isinstance(first, Update)
    assert any("stops this run" in line for line in say(caplog)) == stops
    spoiling.restart()
    before = spoiling.events()
    second = read_reply(spoiling.train(work, round=2))
    assert (second == Refusal("training")) == stops
    assert (spoiling.events() == before) == stops
    assert isinstance(read_reply(spoiling.train(work)), Update)  # the sealed one again
    assert isinstance(read_reply(spoiling.train(work, run="another")), Update)


@pytest.mark.parametrize(
    ("here", "elsewhere", "warned"), [(4, 0, False), (4, 2, False), (4, 3, True), (4, 4, True), (1, 1, True)]
)
def test_it_is_told_when_most_people_of_a_stage_may_not_take_part(
    ward: Any, caplog: pytest.LogCaptureFixture, here: int, elsewhere: int, warned: bool
) -> None:
    """A register that somebody burnt looks like noise to everybody else."""
    ward.limits = SiteLimits(epsilon=60.0)
    names = [f"p{i}" for i in range(here)]
    ward.write("loans.jsonl", ward.people(*names[:elsewhere], "other"))
    ward.write("cards.jsonl", ward.people(*names))
    work = ward.person_work(stages="disjoint")
    ward.play(work, 1, "loans")
    say(caplog)
    ward.play(work, 2, "cards")
    lines = [line for line in say(caplog) if "may take part" in line]
    assert len(lines) == int(warned)
    assert all(f"{here - elsewhere} of {here} persons of stage cards" in line for line in lines)
    assert not any(name in line for line in lines for name in names)


def test_a_stage_without_anybody_is_told(ward: Any, caplog: pytest.LogCaptureFixture) -> None:
    ward.limits = SiteLimits(epsilon=60.0)
    ward.write("cards.jsonl", [])
    ward.play(ward.person_work(), 1)
    assert any("no record fits this stage" in line for line in say(caplog))


CANARY = "Erika-Canary-1999"
WORDS = {"text": "card", "label": "rates", "person": "ann"}
PLANTED: dict[str, list[dict[str, Any]]] = {
    "a text": [{**WORDS, "text": CANARY}],
    "a person": [{**WORDS, "person": CANARY}, {**WORDS, "person": CANARY}],
    "a foreign label": [{**WORDS, "label": CANARY}],
    "a column": [{**WORDS, CANARY: CANARY}],
    "a value that is no text": [{**WORDS, "text": [CANARY]}],
    "a record without its person": [{"text": CANARY, "label": "rates"}],
    "a spoilt record": [{**WORDS, "text": SPOILT, "person": CANARY}],
}


@pytest.mark.parametrize("unit", ["person", "record"])
@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.part(3)
def test_no_word_of_a_record_stands_in_the_log_whatever_is_asked(
    spoiling: Any, caplog: pytest.LogCaptureFixture, kind: str, unit: str
) -> None:
    ward = spoiling
    ward.limits = SiteLimits(
        epsilon=60.0, units=[unit], stop_unusable=0.1, scores="noised" if unit == "person" else "none"
    )
    for file in ("cards.jsonl", "cards.held_out.jsonl"):
        ward.write(file, [*PLANTED[kind], WORDS])
    plan = {"unit": unit, **({"score_noise": 5.0, "records_per_unit": 4} if unit == "person" else {})}
    work = ward.work(plan={**plan, "noise_multiplier": 3.0})
    with caplog.at_level(logging.DEBUG):
        ward.train(work)
        ward.train(work, round=2, stage_name="loans")
        ward.train(replace(work, task=replace(work.task, labels=(("other", "why"),))), run="run-2")
        ward.score(work)
        ward.restart()
        ward.train(work, round=3, lr=-1.0)
        ward.limits = SiteLimits(epsilon=0.01, units=[unit])
        ward.train(work, round=4)
    lines = say(caplog)
    assert lines
    assert not any(CANARY in line for line in lines)
