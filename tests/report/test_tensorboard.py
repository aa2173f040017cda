from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.report.tensorboard import TensorBoardLog, tag, write_events
from llmchain_fl.run_dir import RunDir

Rows = list[dict[str, Any]]


def read_back(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_every_row_can_be_read_back_as_a_scalar_at_its_round(tmp_path: Path, make_rows: Callable[..., Rows]) -> None:
    rows = make_rows()
    with TensorBoardLog(tmp_path) as log:
        log.write(rows)
    found = read_back(tmp_path)
    expected: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        expected.setdefault(tag(row), []).append((row["round"], pytest.approx(row["value"], rel=1e-6)))
    assert found == expected
    assert [step for step, _ in found["site/site-03/epsilon"]] == list(range(1, 10))


def test_a_value_that_was_not_measured_stays_nan(tmp_path: Path) -> None:
    with TensorBoardLog(tmp_path) as log:
        log.write([{"round": 1, "scope": "global", "task": "a", "metric": "loss", "value": math.nan}])
    assert math.isnan(read_back(tmp_path)["global/a/loss"][0][1])


def test_a_resumed_log_hides_the_rounds_that_did_not_count(tmp_path: Path) -> None:
    rows = [{"round": r, "scope": "global", "task": "a", "metric": "accuracy", "value": 0.1 * r} for r in range(4)]
    with TensorBoardLog(tmp_path) as log:
        log.write(rows)
    with TensorBoardLog(tmp_path, resume_after=1) as log:
        log.write([rows[2] | {"value": 0.9}])
    assert [step for step, _ in read_back(tmp_path)["global/a/accuracy"]] == [0, 1, 2]
    assert read_back(tmp_path)["global/a/accuracy"][2][1] == pytest.approx(0.9)


def test_events_written_twice_are_those_of_the_rows_once(tmp_path: Path, make_rows: Callable[..., Rows]) -> None:
    run = RunDir.create(tmp_path / "run", "")
    run.append_rows(make_rows(rounds=3))
    write_events(run)
    write_events(run)
    assert [step for step, _ in read_back(run.events)["global/cards/accuracy"]] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"scope": "global", "task": "cards", "metric": "accuracy"}, "global/cards/accuracy"),
        ({"scope": "site", "site": "s", "task": "cards", "metric": "bytes_up"}, "site/s/bytes_up"),
        ({"scope": "site", "site": "s", "task": "all", "metric": "accuracy"}, "site/s/accuracy"),
        ({"scope": "site", "site": "s", "task": "cards", "metric": "accuracy"}, "site/s/accuracy/cards"),
        ({"scope": "run", "task": "cards", "metric": "seconds"}, "run/all/seconds"),
        ({"metric": "r_matrix", "task": "cards"}, "global/cards/r_matrix"),
    ],
)
def test_scalars_are_named_by_scope_then_task_or_site_then_metric(row: dict[str, str], name: str) -> None:
    assert tag(row) == name


def test_neither_torch_nor_tensorboard_is_loaded_before_a_log_is_made() -> None:
    code = "import sys, llmchain_fl.report.tensorboard; print({'torch', 'tensorboard'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
