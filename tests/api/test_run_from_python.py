"""``llmchain_fl.run``: records in memory, results as values, callbacks, refusals that leave nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pandas
import pytest
import torch

import llmchain_fl as lf
from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.aggregation import RULES
from llmchain_fl.aggregation.ffa import Ffa
from llmchain_fl.api.records import rows_of
from llmchain_fl.cli.trained import open_trained
from llmchain_fl.core.errors import ConfigError, DataError, RunError
from llmchain_fl.core.guards.site_guard import SiteGuard
from llmchain_fl.core.tasks.kind import TASKS
from llmchain_fl.guards.guard import Guard
from llmchain_fl.run_dir import RunDir


def content(result: Any) -> str:
    """Hash of the served adapter."""
    return str(json.loads((result.adapter / "manifest.json").read_text(encoding="utf-8"))["content"])


def test_importing_the_package_loads_no_torch_and_no_flower() -> None:
    code = (
        "import llmchain_fl as lf, sys; dir(lf); print([m for m in ('torch', 'flwr', 'pydantic') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = lf.runn  # type: ignore[attr-defined]


def test_a_run_over_memory_equals_the_same_run_over_files(memory: Any, finished: Any, tmp_path: Path) -> None:
    """The other road: files that this test writes, named in the settings."""
    for name, rows in {**memory.train, "test": memory.test}.items():
        folder = tmp_path / ("test" if name == "test" else "train")
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {"train": str(tmp_path / "train/{site}.jsonl"), "test": str(tmp_path / "test/test.jsonl")}
    settings = memory.settings(
        stage=[{"name": "first", "rounds": 2}],
        data=data,
        sites={"count": 2},
        task={"labels": sorted(memory.small.labels)},
    )
    assert content(lf.run(settings, out=tmp_path / "run")) == content(finished[0])


@pytest.mark.parametrize("kind", [pandas.DataFrame, datasets.Dataset.from_list, iter, tuple])
def test_every_kind_of_data_set_holds_the_same_records(memory: Any, kind: Callable[[Any], Any]) -> None:
    assert rows_of(kind(memory.test), "test") == memory.test


def test_numbers_dates_and_missing_cells_reach_the_file_as_json_has_them(memory: Any, tmp_path: Path) -> None:
    frame = pandas.DataFrame(memory.train["north"]).assign(
        age=pandas.array([41] * 24), seen=pandas.Timestamp("2026-03-01"), weight=float("nan")
    )
    frame.loc[0, "age"] = pandas.NA
    result = lf.run(memory.settings(), train={"north": frame}, test=memory.test, out=tmp_path / "run")
    lines = [json.loads(line) for line in (result.path / "data/train/north.jsonl").read_text().splitlines()]
    assert [(row["age"], row["seen"], row["weight"]) for row in lines[:2]] == [
        (None, "2026-03-01 00:00:00", None),
        (41, "2026-03-01 00:00:00", None),
    ]


def test_records_given_stage_by_stage_make_the_stages(memory: Any, tmp_path: Path) -> None:
    staged = {site: {"may": rows[:8], "june": rows[8:]} for site, rows in memory.train.items()}
    settings = memory.settings()
    del settings["stage"]
    result = lf.run(
        settings,
        train=staged,
        test={"may": memory.test[:8], "june": memory.test[8:]},
        settings=["stage.rounds=1"],
        out=tmp_path / "run",
    )
    assert [path.parent.name for path in sorted(result.path.glob("stages/*/adapter"))] == ["00-may", "01-june"]
    tested = {row["task"]: row["n"] for row in result.rows if row["metric"] == "accuracy" and row["round"] == 2}
    assert tested == {"may": 8, "june": 12}


def test_callbacks_get_every_round_with_its_rows(finished: Any) -> None:
    result, told = finished
    assert [report.round for report, _ in told] == [1, 2]
    assert told[0][1] == [row for row in result.rows if row["round"] == 1]
    assert {"accuracy", "bytes_up"} <= {row["metric"] for row in told[0][1]}


def test_what_a_callback_raises_ends_the_run_and_the_run_goes_on(memory: Any, finished: Any, tmp_path: Path) -> None:
    def stop(report: Any, rows: Any) -> None:
        raise KeyboardInterrupt

    settings = memory.settings(stage=[{"name": "first", "rounds": 2}])
    with pytest.raises(KeyboardInterrupt):
        lf.run(settings, train=memory.train, test=memory.test, callbacks=[stop], out=tmp_path / "run")
    assert content(lf.resume(tmp_path / "run")) == content(finished[0])


def test_a_result_gives_metrics_answers_and_privacy_as_values(finished: Any) -> None:
    result = lf.load(finished[0].path)
    assert len(result.metrics) == len(result.rows)
    assert list(result.metrics["metric"]) == [row["metric"] for row in result.rows]
    texts = ["card lost", "why"]
    top = open_trained(result.path)[1].predict(texts, 2)
    assert result.predict_top(texts, 2) == top
    assert result.predict(texts) == [found[0][0] for found in top]
    assert result.predict("why") == [top[1][0][0]]
    assert result.privacy == {"private": False, "sites": {}}
    assert result.report.is_file()
    assert result.report.name in result._repr_html_()
    with pytest.raises(RunError, match="does not exist"):
        lf.load(result.path / "nowhere")


class Halved(Ffa):
    """``ffa`` under another name."""

    name = "halved"


def test_an_own_rule_is_known_for_as_long_as_the_run_lasts(memory: Any, tmp_path: Path) -> None:
    settings = memory.settings(aggregation={"rule": "halved"})
    result = lf.run(
        settings, train=memory.train, test=memory.test, plugins={"rules": {"halved": Halved()}}, out=tmp_path / "own"
    )
    plain = lf.run(memory.settings(), train=memory.train, test=memory.test, out=tmp_path / "plain")
    assert content(result) == content(plain)
    assert "halved" not in list(RULES)
    assert not [name for name in sys.modules if name.startswith("llmchain_fl_own")]
    with pytest.raises(ConfigError, match="halved"):
        lf.run(settings, train=memory.train, test=memory.test, out=tmp_path / "after")


class Holds(SiteGuard):
    """Takes every step back."""

    bounds: ClassVar = {}
    adds: ClassVar = "pull"

    def pull(self, task: Any, lr: float) -> None:
        """Back to zero."""
        with torch.no_grad():
            task.resident.trained.zero_()


def test_an_own_guard_acts_at_the_sites_of_the_run(memory: Any, tmp_path: Path) -> None:
    result = lf.run(
        memory.settings(continual={"guards": ["holds"]}),
        train=memory.train,
        test=memory.test,
        plugins={"guards": {"holds": Guard("holds", site=Holds)}},
        out=tmp_path / "run",
    )
    factors = {name: value for name, value in read_adapter(result.adapter)[1].items() if name.endswith("lora_B")}
    assert factors
    assert not any(value.any() for value in factors.values())


def test_an_own_task_trains_and_answers_under_its_own_name(memory: Any, finished: Any, tmp_path: Path) -> None:
    settings = memory.settings(task={"kind": "triage"}, stage=[{"name": "first", "rounds": 2}])
    plugins = {"tasks": {"triage": TASKS["classification"]}}
    result = lf.run(settings, train=memory.train, test=memory.test, plugins=plugins, out=tmp_path / "run")
    assert content(result) == content(finished[0])
    assert result.predict_top(["why", "card"]) == finished[0].predict_top(["why", "card"])
    assert "triage" not in list(TASKS)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"train": {}}, ConfigError, "no site"),
        ({"train": {"no/site": [{"text": "a"}]}}, ConfigError, "'no/site'"),
        ({"train": {"north": []}}, DataError, "holds no record"),
        ({"train": {"north": 7}}, DataError, "a int is no data set"),
        ({"train": {"north": "rows.csv"}}, DataError, "a str is no data set"),
        ({"train": {"north": [["card", "lost"]]}}, DataError, "record 1 is a list"),
        ({"train": {"north": {"may": [{"text": "a"}]}}, "test": [{"text": "a"}]}, ConfigError, "stage by stage"),
        ({"plugins": {"rules": {"halved": Halved()}}, "backend": "ray"}, ConfigError, "rules: halved"),
        ({"settings": ["train.lr=-1"]}, ConfigError, "train.lr"),
    ],
)
def test_a_fault_of_the_call_is_one_clear_error_and_leaves_no_folder(
    memory: Any, tmp_path: Path, given: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        lf.run(memory.settings(), **{"train": memory.train, "test": memory.test, **given, "out": tmp_path / "run"})
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_there_is_never_written_over(memory: Any, finished: Any) -> None:
    before = RunDir(finished[0].path).rows()
    with pytest.raises(RunError, match="there already"):
        lf.run(memory.settings(), train=memory.train, test=memory.test, out=finished[0].path)
    assert RunDir(finished[0].path).rows() == before


def test_a_budget_that_ends_first_is_said_in_the_result(memory: Any, tmp_path: Path) -> None:
    rows = {site: [{**row, "person": str(i)} for i, row in enumerate(part)] for site, part in memory.train.items()}
    private = {"enabled": True, "epsilon": 25.0, "noise_multiplier": 0.4}  # the first round costs 18.1
    with pytest.warns(UserWarning, match="budget|epsilon"):
        result = lf.run(
            memory.settings(privacy=private, stage=[{"name": "first", "rounds": 3}]),
            train=rows,
            test=memory.test,
            out=tmp_path / "run",
        )
    assert "budget" in result.stopped
    assert max(site["epsilon"] for site in result.privacy["sites"].values()) < 25
