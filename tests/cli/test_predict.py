"""``predict`` and ``evaluate``: texts and files, by the run's own columns."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmchain_fl.adapter.files import Lineage, write_adapter
from llmchain_fl.cli.main import app
from llmchain_fl.run_dir import RunDir


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small: Any) -> Path:
    """A run whose records call their text "note" and their label "ward", with an adapter over the tiny BERT."""
    from llmchain_fl.core.work import open_work

    config = (
        f'[model]\npath = "{small.bert}"\n[task]\nlabels = {json.dumps(small.labels).replace(":", " =")}\n'
        '[data]\ntrain = "t.csv"\ncolumns = {text = "note", label = "ward", person = "id"}\n[[stage]]\nname = "one"\n'
    )
    made = RunDir.create(tmp_path_factory.mktemp("made") / "run", config)
    work = small.work()
    resident, _ = open_work(work.resident, work.task)
    resident.reset()
    write_adapter(made.adapter, resident, resident.arrays(), work, Lineage("x", 1, "one", ""))
    return made.path


def call(*words: str) -> Any:
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


def test_several_texts_are_answered_in_order(run: Path) -> None:
    said = call("predict", str(run), "card lost", "rate loan", "--top", "1")
    lines = said.stdout.splitlines()
    assert [lines[0], lines[2], len(lines)] == ["card lost", "rate loan", 4]
    assert all("%" in line for line in lines[1::2])


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.csv"
    path.write_bytes('id;note;größe\n7;card lost;a\n8;"rate\nloan";b\n'.encode("latin-1"))
    return path


def test_a_file_is_answered_row_by_row_beside_what_it_holds(run: Path, notes: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.csv"
    said = call("predict", str(run), "--file", str(notes), "--out", str(out), "--top", "2")
    assert f"2 answers in {out}" in said.stdout
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["text"], row["größe"]) for row in rows] == [
        ("7", "card lost", "a"),
        ("8", "rate\nloan", "b"),
    ]
    assert set(rows[0]) >= {"predicted", "probability", "predicted_2", "probability_2"}
    assert all(0 < float(row["probability_2"]) <= float(row["probability"]) < 1 for row in rows)
    plain = call("predict", str(run), "card lost", "--top", "1").stdout.splitlines()[1].split()
    assert rows[0]["predicted"] == plain[1]


def test_answers_may_be_json_lines_and_another_column_may_be_named(run: Path, tmp_path: Path) -> None:
    (tmp_path / "n.jsonl").write_text('{"remark": {"body": "card lost"}}\n')
    out = tmp_path / "a.jsonl"
    call("predict", str(run), "--file", str(tmp_path / "n.jsonl"), "--column", "text=remark.body", "--out", str(out))
    assert json.loads(out.read_text())["text"] == "card lost"


def test_evaluate_takes_the_columns_of_the_run(run: Path, tmp_path: Path, small: Any) -> None:
    records = small.rows(12)
    (tmp_path / "own.jsonl").write_text(
        "".join(json.dumps({"note": row["text"], "ward": row["label"]}) + "\n" for row in records)
    )
    (tmp_path / "ours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    own = call("evaluate", str(run), str(tmp_path / "own.jsonl"))
    told = call("evaluate", str(run / "adapter"), str(tmp_path / "ours.jsonl"), "--column", "text=text", "--column",
                "label=label")  # fmt: skip
    assert own.stdout == told.stdout
    assert "accuracy 0." in own.stdout
    assert "records 12" in own.stdout
