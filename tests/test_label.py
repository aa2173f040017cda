"""Which records are labelled next: a rule of each person's own records, written where nobody else reads."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from llmchain_fl.adapter.files import Lineage, write_adapter
from llmchain_fl.cli.main import app
from llmchain_fl.core.errors import ConfigError, DataError
from llmchain_fl.core.work import open_work
from llmchain_fl.label import Told, margins, queue, sure

PERSON = st.sampled_from(["ann", "bob", "eve"])
POOL = st.lists(st.tuples(PERSON, st.floats(0.5, 1.0)), min_size=1, max_size=20)


def pool(told: list[tuple[str, float]]) -> tuple[list[dict[str, str]], list[list[tuple[str, float]]]]:
    return [{"person": name} for name, _ in told], [[("a", p), ("b", 1 - p)] for _, p in told]


@given(POOL, st.floats(0, 1), st.integers(1, 3))
def test_leaving_one_person_out_changes_nothing_for_the_others(told: Any, below: float, most: int) -> None:
    rows, answers = pool(told)
    chosen = [(rows[k]["person"], answers[k]) for k in queue(rows, answers, Told(below, most=most))]
    left = [one for one in told if one[0] != "bob"]
    rows, answers = pool(left)
    assert [(rows[k]["person"], answers[k]) for k in queue(rows, answers, Told(below, most=most))] == [
        one for one in chosen if one[0] != "bob"
    ]
    assert len([one for one in chosen if one[0] == "ann"]) <= most


def test_a_record_is_asked_about_below_and_labelled_from_the_public_numbers_on() -> None:
    rows, answers = pool([("ann", 0.55), ("bob", 0.7), ("eve", 0.95)])
    assert margins(answers) == pytest.approx([0.1, 0.4, 0.9])
    assert queue(rows, answers, Told(below=0.39)) == [0]
    assert queue(rows, answers, Told(below=0.41)) == [0, 1]
    assert sure(answers, Told(sure=0.95)) == [2]
    assert sure([[("a", float("nan"))]], Told()) == []
    assert margins([[("only", 1.0)]]) == [1.0]


@pytest.fixture(scope="module")
def adapter(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = small.work()
    resident, _ = open_work(work.resident, work.task)
    resident.reset()
    folder = tmp_path_factory.mktemp("released") / "adapter"
    write_adapter(folder, resident, resident.arrays(), work, Lineage("x", 1, "one", ""))
    return folder


def call(*words: Any) -> Any:
    return CliRunner().invoke(app, ["label", *map(str, words)], catch_exceptions=False)


def test_queue_and_sure_labels_are_files_of_their_owner_alone(adapter: Path, tmp_path: Path) -> None:
    file = tmp_path / "notes.jsonl"
    rows = [{"text": f"card {word}", "person": "ann", "label": "secret"} for word in ("lost", "stolen", "new", "fee")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ask, own = tmp_path / "ask.jsonl", tmp_path / "sure.jsonl"
    said = call(
        adapter, "--file", file, "--queue", ask, "--sure", own, "--below", "1", "--most", "3", "--at-least", "0.5"
    )
    assert said.exit_code == 0
    found = [json.loads(line) for line in ask.read_text().splitlines()]
    assert len(found) == 3
    assert all(row["label"] == "" and row["suggested"] and row["person"] == "ann" for row in found)
    assert "secret" not in ask.read_text() + own.read_text() + said.output
    for out in (ask, own):
        assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_what_cannot_be_done_is_refused_before_anything_is_computed(adapter: Path, tmp_path: Path) -> None:
    file, there = tmp_path / "notes.jsonl", tmp_path / "there.jsonl"
    file.write_text('{"text": "card"}\n{"text": ""}\n')
    there.write_text("mine")
    with pytest.raises(ConfigError, match="--queue"):
        call(adapter, "--file", file)
    with pytest.raises(ConfigError, match="there already"):
        call(adapter, "--file", file, "--queue", there)
    with pytest.raises(DataError) as caught:
        call(adapter, "--file", file, "--queue", tmp_path / "ask.jsonl")
    assert caught.value.where == f"{file}:2"
    assert there.read_text() == "mine"
