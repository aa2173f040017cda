"""Bad input ends with one clear error that names what is wrong and what to do, exit code 2, and nothing lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from llmchain_fl.cli.main import main

CANARY = "Jane-Canary-1970"
LABELS = ["card lost", "card late"]


def scenario(folder: Path, rows: list[str] | None = None, extra: str = "") -> Path:
    """A small federation over ``rows`` (JSON lines) with the real MiniLM."""
    good = [json.dumps({"text": f"where is my card {i} {CANARY}", "label": LABELS[i % 2]}) for i in range(40)]
    (folder / "train.jsonl").write_text("\n".join(good if rows is None else rows) + "\n")
    (folder / "test.jsonl").write_text("\n".join(good[:4]) + "\n")
    path = folder / "small.toml"
    path.write_text(
        f"""
[model]
threads = 1
[adapter]
last_layers = 1
[task]
labels = {json.dumps(LABELS)}
[data]
train = "{folder}/train.jsonl"
test = "{folder}/test.jsonl"
[train]
steps = 1
[[stage]]
rounds = 1
{extra}
"""
    )
    return path


def fails(argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command line; it must exit with 2; returns what it said."""
    monkeypatch.setattr(sys, "argv", ["llmchain-fl", *argv])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr()
    assert stopped.value.code == 2
    assert "Traceback" not in said.err + said.out
    assert said.err.count("error: ") == 1
    return said.err


SETTINGS = {
    "unknown key": (["train.lrr=0.1"], ["train.lrr", "train.lr?"]),
    "wrong type": (["train.steps=many"], ["train.steps", "'many'"]),
    "below its bound": (["train.lr=-1"], ["train.lr", "greater than 0"]),
    "not finite": (["train.lr=nan"], ["train.lr"]),
    "unknown choice": (["aggregation.rule=fedavg"], ["aggregation.rule", "ffa"]),
    "three faults at once": (
        ["train.lr=0", "sites.count=0", "modle.path=x"],
        ["3 faults", "sites.count", "modle.path"],
    ),
    "no equals sign": (["train.lr"], ["key=value"]),
    "a stage that is not there": (["stage.7.rounds=2"], ["stage.7.rounds", "numbered from 0"]),
    "cohort larger than the federation": (["sites.cohort=9"], ["sites.cohort = 9", "sites.count = 2"]),
    "weights for other sites": (["aggregation.weights=[1.0]"], ["aggregation.weights", "sites.count = 2"]),
    "privacy without a budget": (["privacy.enabled=true"], ["privacy.epsilon"]),
    "no label list": (["task.labels=[]"], ["task.labels", "public label list"]),
    "a missing label file": (["task.labels=nowhere.json"], ["nowhere.json"]),
    "a guard twice": (['continual.guards=["ema","ema"]'], ["names a guard twice"]),
    "a partition without its column": (["sites.partition=natural"], ["sites.column"]),
    "a partition by a column that is not there": (["sites.partition=natural", "sites.column=hospital"], ["hospital"]),
    "a stage range outside the labels": (["stage.labels=0:99"], ["0:99", "0:2"]),
    "a stage that keeps nothing": (["stage.where={label='none'}"], ["no record is left"]),
    "more sites than records": (["sites.count=400"], ["400"]),
    "a model that is not there": (["model.path=./no-such-model"], ["no-such-model", "known name"]),
    "a directory without a model": (["model.path=."], ["config.json"]),
    "a layer that is not there": (['adapter.targets=["qwery"]'], ["qwery", "query"]),
    "more layers than the model has": (["adapter.last_layers=99"], ["99", "6 layers"]),
    "an impossible budget": (["privacy.enabled=true", "privacy.epsilon=500"], ["privacy.epsilon", "500", "100"]),
    "an unknown generator": (["data.train=generated:bank-mesages"], ["bank-mesages", "bank-messages"]),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_bad_setting_gives_one_clear_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, words = SETTINGS[name]
    argv = ["simulate", str(scenario(tmp_path)), "--out", str(tmp_path / "run")]
    for setting in settings:
        argv += ["--set", setting]
    said = fails(argv, monkeypatch, capsys)
    for word in words:
        assert word in said
    assert CANARY not in said


GOOD = [json.dumps({"text": f"{CANARY} {i}", "label": LABELS[i % 2]}) for i in range(20)]
RECORDS = {
    "a line that is no JSON": ([*GOOD, f'{{"text": "{CANARY}'], ["train.jsonl:21"]),
    "a missing column": ([json.dumps({"utterance": CANARY, "label": LABELS[0]})] * 9, ["train.jsonl", "text"]),
    "an unknown label": ([*GOOD, json.dumps({"text": "x", "label": CANARY})], ["train.jsonl:21", "public label list"]),
    "an empty text": ([*GOOD, json.dumps({"text": " ", "label": LABELS[0]})], ["train.jsonl:21"]),
    "an empty file": ([], ["train.jsonl"]),
}


@pytest.mark.parametrize("name", RECORDS)
def test_bad_records_are_named_by_file_and_line_and_never_quoted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, words = RECORDS[name]
    said = fails(["simulate", str(scenario(tmp_path, rows)), "--out", str(tmp_path / "run")], monkeypatch, capsys)
    for word in words:
        assert word in said
    assert CANARY not in said


COMMANDS = {
    "an unknown scenario": (["simulate", "demmo"], ["demmo", "demo?"]),
    "a missing scenario file": (["simulate", "no/such.toml"], ["no/such.toml"]),
    "an unknown backend": (["simulate", "demo", "--backend", "mpi"], ["mpi", "ray"]),
    "resuming nothing": (["simulate", "--resume", "no-such-run"], ["no-such-run"]),
    "resuming with other settings": (["simulate", "--resume", "x", "--set", "seed=2"], ["x does not exist"]),
    "predicting with nothing": (["predict", "no-such-run", "hello"], ["no-such-run"]),
    "reporting nothing": (["report", "no-such-run"], ["no-such-run"]),
    "evaluating with a bad column": (["evaluate", "x", "y", "--column", "text"], ["name=column"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bad_command_gives_one_clear_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, words = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    said = fails(argv, monkeypatch, capsys)
    for word in words:
        assert word in said


def test_a_broken_toml_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[train\nlr = 1")
    assert "not valid TOML" in fails(["simulate", str(path)], monkeypatch, capsys)


def test_a_run_directory_in_use_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    said = fails(["simulate", str(scenario(tmp_path)), "--out", str(tmp_path / "run")], monkeypatch, capsys)
    assert str(tmp_path / "run") in said
    assert (tmp_path / "run" / "thesis.txt").read_text() == "precious"
