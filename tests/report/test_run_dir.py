from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchain_fl.core.errors import RunError
from llmchain_fl.run_dir import RunDir, atomic_write, fresh, write_json


def row(round: int, value: float = 0.5, **more: Any) -> dict[str, Any]:
    base = {"round": round, "stage": 0, "scope": "global", "site": None, "task": "all", "metric": "accuracy"}
    return base | {"value": value, "n": 10} | more


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "runs" / "demo-1", "seed = 1\n")


def test_a_new_run_holds_its_settings_and_says_what_every_file_is(run: RunDir) -> None:
    assert run.config.read_text() == "seed = 1\n"
    assert run.rows() == []
    readme = (run.path / "README.txt").read_text()
    for path in (
        run.config,
        run.metrics,
        run.privacy,
        run.report,
        run.adapter,
        run.events,
        run.state,
        run.sites,
        run.earlier,
    ):
        assert path.name in readme
        assert path.parent == run.path


def test_a_run_is_never_created_over_something_else(run: RunDir, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not empty"):
        RunDir.create(run.path, "seed = 2\n")
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(RunError):
        RunDir.create(file, "")
    assert run.config.read_text() == "seed = 1\n"
    assert file.read_text() == "mine"


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    assert RunDir.open(RunDir.create(tmp_path, "").path).path == tmp_path


@pytest.mark.parametrize("asked", ["runs/demo-11", "runs/dmo-1", "demo-1", "runs/demo-1/adapter"])
def test_a_run_that_is_missing_or_foreign_names_the_nearest_one(run: RunDir, tmp_path: Path, asked: str) -> None:
    RunDir.create(tmp_path / "runs" / "zzzzz", "")
    with pytest.raises(RunError) as caught:
        RunDir.open(tmp_path / asked)
    assert caught.value.remedy == f"did you mean {run.path}?"
    assert asked in caught.value.what


@pytest.mark.parametrize("asked", ["runs", "nothing-like-it"])
def test_where_no_name_is_near_the_latest_run_is_named(run: RunDir, tmp_path: Path, asked: str) -> None:
    for age, name in enumerate(("qqqq", "xxxx", "zzzz")):
        os.utime(RunDir.create(tmp_path / "runs" / name, "").metrics, (1e9 - age, 1e9 - age))
    os.utime(run.metrics, (1e8, 1e8))
    with pytest.raises(RunError, match="qqqq"):
        RunDir.open(tmp_path / asked)


def test_without_any_run_nearby_the_error_still_says_what_to_do(tmp_path: Path) -> None:
    lonely = tmp_path / "some" / "project"
    lonely.mkdir(parents=True)
    (lonely / "config.toml").write_text("")  # another project's file does not make a run
    with pytest.raises(RunError, match="is not the directory of a run") as caught:
        RunDir.open(lonely)
    assert "name the directory" in caught.value.remedy


def test_fresh_names_count_up_from_the_highest_and_stay_inside_the_base(tmp_path: Path) -> None:
    assert fresh(tmp_path, "demo") == tmp_path / "demo-1"
    for name in ("demo-2", "demo-10", "demo-x", "demo-big-30"):
        (tmp_path / name).mkdir()
    assert fresh(tmp_path, "demo") == tmp_path / "demo-11"
    assert fresh(tmp_path, "../../etc/x y").parent == tmp_path
    assert fresh(tmp_path, "..").name == "run-1"


def test_a_stage_adapter_never_leaves_the_run(run: RunDir) -> None:
    assert run.stage_adapter(2, "cards").relative_to(run.path) == Path("stages/02-cards/adapter")
    assert run.stage_adapter(0, "../../x").relative_to(run.path) == Path("stages/00-x/adapter")


def test_rows_come_back_as_they_were_written_up_to_a_round(run: RunDir) -> None:
    rows = [row(0), row(1, task="line\u2028break"), row(2, reason="why")]
    run.append_rows(rows[:1])
    run.append_rows(rows[1:])
    assert run.rows() == rows
    assert run.rows(upto_round=1) == rows[:2]


def test_what_is_no_finite_number_is_null_on_disk_and_nan_in_memory(run: RunDir) -> None:
    run.append_rows([row(1, math.nan), row(2, math.inf), row(3, np.float32(0.5)), row(int(np.int64(4)), n=np.int64(7))])  # type: ignore[arg-type]
    assert [json.loads(line)["value"] for line in run.metrics.read_text().splitlines()] == [None, None, 0.5, 0.5]
    values = [r["value"] for r in run.rows()]
    assert math.isnan(values[0])
    assert math.isnan(values[1])
    assert values[2:] == [0.5, 0.5]


@pytest.mark.parametrize("bad", [{"round": 1, "metric": "x"}, row(1) | {"round": 1.5}, row(1) | {"value": "high"}])
def test_a_row_that_is_none_is_refused_and_nothing_of_its_batch_is_written(run: RunDir, bad: dict[str, Any]) -> None:
    with pytest.raises(RunError):
        run.append_rows([row(1), bad])
    assert run.rows() == []


@settings(max_examples=40, deadline=None)
@given(
    cut=st.integers(0, 2000), values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6)
)
def test_a_crash_at_any_byte_loses_at_most_the_line_it_tore(
    tmp_path_factory: pytest.TempPathFactory, cut: int, values: list[float]
) -> None:
    run = RunDir.create(tmp_path_factory.mktemp("run"), "")
    rows = [row(i, value) for i, value in enumerate(values)]
    run.append_rows(rows)
    whole = run.metrics.read_bytes()
    run.metrics.write_bytes(whole[: min(cut, len(whole))])
    survived = run.rows()
    assert survived == rows[: len(survived)]
    assert len(survived) >= whole[: min(cut, len(whole))].count(b"\n")
    run.append_rows([row(99)])
    assert run.rows() == [*survived, row(99)]


def test_damage_in_the_middle_is_refused_with_its_line_and_without_its_text(run: RunDir) -> None:
    run.append_rows([row(0), row(1), row(2)])
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text(lines[0] + "SECRET {\n" + lines[2])
    with pytest.raises(RunError, match=r"metrics\.jsonl:2 is damaged, and 1 more") as caught:
        run.rows()
    assert "SECRET" not in str(caught.value)


def test_truncating_keeps_the_earlier_lines_byte_for_byte(run: RunDir) -> None:
    run.append_rows([row(0), row(1), row(2)])
    before = run.metrics.read_bytes().splitlines(keepends=True)
    with run.metrics.open("ab") as file:
        file.write(b'{"round": 3, "met')
    run.truncate_after(1)
    assert run.metrics.read_bytes() == b"".join(before[:2])
    run.truncate_after(-1)
    assert run.metrics.read_bytes() == b""


def test_privacy_is_not_written_without_what_gives_an_epsilon_its_meaning(run: RunDir) -> None:
    with pytest.raises(RunError, match="unit, accountant"):
        run.write_privacy({"private": True, "delta": 1e-5, "sites": {}})
    assert run.read_privacy() == {}
    plan = {
        "private": True,
        "delta": 1e-5,
        "unit": "record",
        "accountant": "pld",
        "sites": {"a": {"epsilon": math.inf}},
    }
    run.write_privacy(plan)
    assert run.read_privacy() == plan | {"sites": {"a": {"epsilon": None}}}


def test_a_damaged_privacy_file_is_an_error_and_not_an_absence_of_privacy(run: RunDir) -> None:
    for text in ("{", "[]", ""):
        run.privacy.write_text(text)
        with pytest.raises(RunError, match="damaged"):
            run.read_privacy()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "file.json"
    write_json(path, {"a": [1, math.nan]})
    assert json.loads(path.read_text()) == {"a": [1, None]}

    def broken(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, b"new")
    assert json.loads(path.read_text()) == {"a": [1, None]}
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_a_run_has_begun_once_there_is_something_to_go_on_from(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", "")
    assert not run.begun
    (run.state / "round-000000.safetensors").write_bytes(b"")
    assert run.begun
