"""Public records for the guards: which, of what stage, and in which order."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.config.read import build
from llmchain_fl.core.errors import ConfigError, DataError
from llmchain_fl.data.public import public_rows

LABELS = ["red", "blue", "green", "grey"]
STAGES = [{"name": "warm", "labels": ["red"]}, {"name": "cold", "labels": ["blue", "green"]}]


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """Five records of each label."""
    path = tmp_path / "told.jsonl"
    rows = [{"text": f"{label} {n}", "label": label, "person": "p"} for n in range(5) for label in LABELS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(stages: list[dict[str, Any]] | None = None, seed: int = 1, **continual: Any) -> tuple[Any, ...]:
    tree = {
        "seed": seed,
        "task": {"labels": LABELS},
        "data": {"train": "train.csv", "test": "test.csv"},
        "stage": STAGES if stages is None else stages,
        "continual": {key: str(value) if isinstance(value, Path) else value for key, value in continual.items()},
    }
    return public_rows(build(tree), LABELS)


def test_without_a_public_source_there_are_none() -> None:
    assert rows_of() == ()


def test_each_stage_takes_the_records_it_would_keep(told: Path) -> None:
    found = rows_of(public=told)
    assert Counter((row["stage"], row["label"]) for row in found) == {
        ("warm", "red"): 5,
        ("cold", "blue"): 5,
        ("cold", "green"): 5,
    }


def test_a_stage_may_have_a_source_of_its_own(told: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"text": "ember", "label": "red"}) + "\n", encoding="utf-8")
    found = rows_of([{**STAGES[0], "public": str(own)}, STAGES[1]], public=told)
    assert [row["text"] for row in found if row["stage"] == "warm"] == ["ember"]
    assert len([row for row in found if row["stage"] == "cold"]) == 10


def test_no_more_than_asked_for_and_as_many_of_each_stage(told: Path) -> None:
    assert Counter(row["stage"] for row in rows_of(public=told, public_size=4)) == {"warm": 2, "cold": 2}


def test_the_order_follows_from_the_seed(told: Path) -> None:
    assert rows_of(public=told, seed=1) == rows_of(public=told, seed=1)
    assert rows_of(public=told, seed=1) != rows_of(public=told, seed=2)


def test_general_records_belong_to_no_stage_and_have_no_label(told: Path) -> None:
    found = rows_of(public=told, public_stages=False)
    assert len(found) == 20
    assert all(set(row) == {"text"} for row in found)
    assert len({row["text"] for row in found}) == 20


def test_general_records_need_no_label_of_the_run(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_text(json.dumps({"text": "sour", "label": "taste"}) + "\n", encoding="utf-8")
    assert rows_of(public=foreign, public_stages=False) == ({"text": "sour"},)
    with pytest.raises(DataError, match="no public record is left"):
        rows_of(public=foreign)


def test_general_records_stand_beside_those_of_stages_with_a_source_of_their_own(told: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"text": "ember", "label": "red"}) + "\n", encoding="utf-8")
    found = rows_of([{**STAGES[0], "public": str(own)}, STAGES[1]], public=told, public_stages=False)
    assert Counter(row.get("stage") for row in found) == {None: 20, "warm": 1}


def test_a_stage_for_which_nothing_is_left_is_told(told: Path) -> None:
    text = told.read_text(encoding="utf-8").replace('"red"', '"grey"')
    told.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match='no public record is left for stage "warm"'):
        rows_of(public=told)


@pytest.mark.parametrize("guards", [["agem"], ["slots"], ["slots", "route"], ["replay"]])
def test_a_guard_that_must_tell_stages_apart_is_refused_general_records(told: Path, guards: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        rows_of(public=told, public_stages=False, guards=guards)
    for name in guards:
        assert f'guard "{name}" needs public records of each stage' in "\n".join(refused.value.faults)
