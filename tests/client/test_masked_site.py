"""A whole site that is told which labels are of which stage: what moves the rows of a trained head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from client.site import SiteLimits
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.replies import Update, read_reply

STAGES = (("cards", (0, 1)), ("loans", (2, 3)))
FILES = {"cards": ("lost_card", "transfer"), "loans": ("rates", "other")}
GUARDS = (GuardSpec("rehearsal", (("keep", 1.0),)), GuardSpec("mask", (("others", 0.0),)))


@pytest.fixture
def told(ward: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A site with records of two stages, whose updates are minus the sums themselves; and its work."""
    monkeypatch.setattr(SecureNoise, "added", lambda self, values, std: values.float())
    ward.limits = SiteLimits(epsilon=1e6, units=["record"])
    for stage, labels in FILES.items():
        texts = ("card lost", "send money why", "loan rate")
        ward.write(f"{stage}.jsonl", [{"text": text, "label": label} for text in texts for label in labels])
    loop = {"sampling_rate": 1.0, "steps": 1, "batch_size": 1.0, "optimizer": "sgd", "momentum": 0.0}
    made = ward.work(head="trained", train=loop, plan={"noise_multiplier": 3.0, "rehearsal": "earlier"})
    work = replace(made, guards=GUARDS, task=replace(made.task, stage_labels=STAGES))
    return lambda stage, *earlier: moved(ward, work, stage, earlier)


def moved(ward: Any, work: Any, stage: str, earlier: tuple[str, ...]) -> list[int]:
    """The labels whose rows of the head a round moves."""
    run = "-".join([stage, *earlier])
    reply = read_reply(ward.train(work, run=run, stage_name=stage, earlier=earlier, lr=1.0))
    assert isinstance(reply, Update), reply
    return np.flatnonzero(np.asarray(reply.arrays["head.weight"]).any(axis=1)).tolist()


def test_a_round_moves_the_rows_of_its_own_stage(told: Any) -> None:
    assert told("cards") == [0, 1]
    assert told("loans") == [2, 3]


def test_a_round_that_rehearses_a_stage_moves_the_rows_of_both(told: Any) -> None:
    assert told("loans", "cards") == [0, 1, 2, 3]


def test_records_of_another_stage_in_the_file_of_this_one_move_nothing(ward: Any, told: Any) -> None:
    ward.write("cards.jsonl", [{"text": "loan rate", "label": label} for label in FILES["loans"]])
    assert told("cards") == []
