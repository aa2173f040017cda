"""Rehearsal at a whole site whose stages share records: what one person moves, and what is booked for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from client.site import SiteLimits
from llmchain_fl.core.privacy.accounting import epsilon
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.noise import SecureNoise
from llmchain_fl.core.work import GuardSpec
from llmchain_fl.replies import Refusal, Update, read_reply

CLIP, NOISE = 1e-3, 3.0
EARLIER = [(), ("s2",), ("s2", "s3"), tuple(f"s{i}" for i in range(2, 11))]
UNITS = {"persons": ("person", {}), "persons without names": ("person", {"one_record_per_person": True})}
UNITS["records"] = ("record", {})


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What leaves is the sum itself."""
    monkeypatch.setattr(SecureNoise, "added", lambda self, values, std: values.float())


def work_of(ward: Any, unit: str) -> Any:
    """Everybody in one step of plain descent at learning rate 1 and divisor 1: the update is minus the sum."""
    plan = {"unit": unit, "records_per_unit": 4 if unit == "person" else 1, "clip_norm": CLIP}
    loop = {"sampling_rate": 1.0, "steps": 1, "batch_size": 1.0, "optimizer": "sgd", "momentum": 0.0}
    made = ward.work(train=loop, plan={**plan, "noise_multiplier": NOISE, "rehearsal": "earlier"})
    return replace(made, guards=(GuardSpec("rehearsal", (("keep", 1.0),)),))


def sum_of(ward: Any, work: Any, run: str, rows: list[dict[str, str]], earlier: tuple[str, ...]) -> np.ndarray:
    ward.write("all.jsonl", rows)
    ward.restart()
    reply = read_reply(ward.train(work, run=run, stage_name="s1", earlier=earlier, lr=1.0))
    assert isinstance(reply, Update), reply
    return np.concatenate([np.asarray(value, dtype=np.float64).ravel() for value in reply.arrays.values()])


@pytest.mark.parametrize("earlier", EARLIER, ids=len)
@pytest.mark.parametrize("kind", UNITS)
def test_one_person_in_one_file_of_all_stages_moves_the_sum_by_the_clip_norm_and_pays_for_that(
    ward: Any, silent: None, kind: str, earlier: tuple[str, ...]
) -> None:
    """Without ``{stage}`` in the source every stage is the same file: nine copies moved it by ten clip norms."""
    unit, data = UNITS[kind]
    ward.limits = SiteLimits(epsilon=1e6, units=[unit])
    ward.data = {"train": str(ward.folder / "all.jsonl"), **data}
    work = work_of(ward, unit)
    rows = ward.people("ann", "bob", "eve", "target")
    whole = sum_of(ward, work, "with", rows, earlier)
    without = sum_of(ward, work, "without", rows[:3], earlier)
    moved = float(np.linalg.norm(whole - without)) / CLIP
    assert 0.5 < moved <= 1 + 1e-4  # the update is float32
    booked = ward.site.open_ledger(unit).spent().epsilon
    assert booked >= epsilon([Event("gaussian", 1.0, NOISE / moved, 1)], 1e-5)


@pytest.mark.parametrize(
    "earlier", [("cards",), ("loans", "loans"), ("loans", "fees", "loans"), ("loans", "cards"), ("cards",) * 9]
)
def test_stages_named_twice_or_the_present_one_are_refused_for_free(ward: Any, earlier: tuple[str, ...]) -> None:
    work = work_of(ward, "person")
    reply = read_reply(ward.train(work, earlier=earlier))
    assert reply == Refusal("wire")
    assert ward.booked() == []


def test_records_that_are_copied_into_the_files_of_several_stages_are_one_record(ward: Any, silent: None) -> None:
    ward.limits = SiteLimits(epsilon=1e6)
    work, rows = work_of(ward, "person"), ward.people("ann", "bob", "target")
    sums = []
    for name, told in (("with", rows), ("without", rows[:2])):
        for stage in ("s1", "s2", "s3"):
            ward.write(f"{stage}.jsonl", told)
        ward.restart()
        reply = read_reply(ward.train(work, run=name, stage_name="s1", earlier=("s2", "s3"), lr=1.0))
        assert isinstance(reply, Update), reply
        sums.append(np.concatenate([np.asarray(v, dtype=np.float64).ravel() for v in reply.arrays.values()]))
    assert 0.5 < float(np.linalg.norm(sums[0] - sums[1])) / CLIP <= 1 + 1e-4
    assert [result.records for _, _, result in ward.watched] == [3, 2]
