"""The lines that scores are read against, in whole runs; measuring them changes nothing that is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.config.write import to_toml
from llmchain_fl.metrics_file import main_metric
from llmchain_fl.progress import Silent
from llmchain_fl.run_dir import RunDir
from simulations.run import simulate


def play(tiny: Any, path: Path, **sections: dict[str, object]) -> RunDir:
    config = tiny.config(**{"data": {"baseline": 1500}, **sections})
    run = RunDir.create(path, to_toml(config))
    simulate(config, run, Silent())
    return run


@pytest.fixture(scope="module")
def plain(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return play(tiny, tmp_path_factory.mktemp("references") / "run")


def test_every_stage_has_its_references(plain: RunDir) -> None:
    rows = plain.rows()
    assert main_metric(rows).name == "accuracy"
    for stage in ("first", "second"):
        of = [row for row in rows if row.get("task") == stage]
        assert {row["metric"] for row in of if row["scope"] == "baseline"} == {
            "majority", "chance", "ridge_all", "ridge_alone",
        }  # fmt: skip
        assert {row["site"] for row in of if row["metric"] == "ridge_alone"} == {"site-00", "site-01", "site-02"}
        assert {row["label"] for row in of if row["metric"] == "recall"} == {"lost_card", "transfer", "rates", "other"}
        assert all(
            0 <= row["half_width"] <= 1 for row in of if row["metric"] == "accuracy" and row["scope"] == "global"
        )
    (change,) = [row for row in rows if row["metric"] == "change_taught"]
    assert (change["task"], change["round"], change["of"]) == ("first", 2, "accuracy")
    served = [row for row in rows if row["scope"] == "global"]
    ends = {row["task"]: row["value"] for row in served if row["metric"] == "r_matrix" and row["stage"] == 1}
    before = {row["task"]: row["value"] for row in served if row["metric"] == "accuracy" and row["round"] == 0}
    found = {row["task"]: row["value"] for row in rows if row["metric"] == "change_untrained" and row["stage"] == 1}
    assert found == pytest.approx({task: ends[task] - before[task] for task in ends})


def test_measuring_the_baseline_changes_no_number_of_the_adapter(plain: RunDir, tiny: Any, tmp_path: Path) -> None:
    other = play(tiny, tmp_path / "run", data={"baseline": 0})
    assert not any(row["metric"].startswith("ridge") for row in other.rows())
    (_, one), (_, two) = read_adapter(plain.adapter), read_adapter(other.adapter)
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_records_kept_for_the_end_have_their_own(tiny: Any, tmp_path: Path) -> None:
    run = play(tiny, tmp_path / "run", data={"dev": str(tiny.train), "baseline": 1500})
    metrics = {row["metric"] for row in run.rows() if row.get("task") == "first"}
    assert {"majority", "ridge_all", "test_majority", "test_ridge_all", "test_untrained", "test_macro_f1"} <= metrics
    assert {"test_change_untrained", "test_recall"} <= metrics


def test_few_records_are_the_same_share_of_every_site(tiny: Any, tmp_path: Path) -> None:
    run = play(tiny, tmp_path / "run", data={"baseline": 12}, stage=[{"name": "one", "rounds": 1}])
    known = {row["site"]: row["records"] for row in run.rows() if row["metric"].startswith("ridge")}
    assert sum(known[site] for site in known if site) == known[None] <= 12
    assert min(known.values()) >= 3
