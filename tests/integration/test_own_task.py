"""A task of another package: one file and one entry point, configured, trained, scored and reported as itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from client.check import check_base
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import ConfigError, PrivacyError
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.metrics_file import declared, main_metric
from llmchain_fl.progress import Silent
from llmchain_fl.report.readings import Readings
from llmchain_fl.report.tables import forgotten
from llmchain_fl.run_dir import RunDir
from simulations.run import simulate

TASK = '''
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.core.tasks.kind import TaskKind
from llmchain_fl.core.tasks.metric import Metric


class Points(Classification):
    """Ten points for each right answer: a score that is better when higher, and no share."""

    def score(self, examples, batch=128):
        return {"points": 10 * super().score(examples, batch)["accuracy"]}

    def record_scores(self, examples, batch=128):
        return 10 * super().record_scores(examples, batch)


KIND = TaskKind(
    ("text", "label"),
    "encoder",
    (Metric("points", "higher", bound=10.0),),
    lambda spec, resident: Points(resident, dict(spec.labels), spec.pooling, spec.scale, spec.max_tokens),
)
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package beside this one, as pip lays it down: a module and its entry point."""
    (tmp_path / "scratch_points.py").write_text(TASK)
    facts = tmp_path / "scratch_points-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: scratch-points\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[llmchain_fl.tasks]\npoints = scratch_points:KIND\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("scratch_points", None)


def test_a_task_of_another_package_is_trained_and_reported_as_itself(
    installed: None, tiny: Any, tmp_path: Path
) -> None:
    config = tiny.config(task={"kind": "points"}, stage=[{"name": "one", "rounds": 1}, {"name": "two", "rounds": 1}])
    run = RunDir.create(tmp_path / "run", to_toml(config))
    simulate(config, run, Silent())
    rows = run.rows()
    main = main_metric(rows)
    assert (main.name, main.better, main.bound) == ("points", "higher", 10.0)
    assert declared(rows)["average_points"].better == "higher"
    assert declared(rows)["forgetting"].better == "lower"
    assert {row["site"] for row in rows if row["metric"] == "points" and row["scope"] == "site"} == set(run_sites(run))
    page = run.report.read_text()
    assert "points" in page
    assert "loss" not in page.lower().replace("lossless", "")


def run_sites(run: RunDir) -> list[str]:
    return sorted(path.name for path in run.sites.iterdir() if path.is_dir())


@pytest.mark.parametrize(("late", "lost"), [(9.0, -3.0), (2.0, 4.0)])
def test_a_score_that_rises_is_not_forgotten(late: float, lost: float) -> None:
    told = {"scope": "global", "better": "higher", "unit": "", "bound": 10.0, "n": 5, "site": None}
    rows = [
        {**told, "round": number, "stage": stage, "task": task, "metric": metric, "value": value}
        for number, stage, first, second in ((1, 0, 6.0, 1.0), (2, 1, late, 8.0))
        for task, value in (("one", first), ("two", second))
        for metric in ("points", "r_matrix")
    ]
    run = Readings(rows)
    assert run.score.name == "points"
    assert forgotten(run) == pytest.approx(lost)


def test_the_nearest_name_is_offered(installed: None, tiny: Any) -> None:
    with pytest.raises(ConfigError) as told:
        tiny.config(task={"kind": "point"})
    assert "task.kind = 'point'" in str(told.value)
    assert "did you mean points?" in str(told.value)


def test_a_site_loads_no_task_that_its_file_does_not_name(installed: None, small: Any) -> None:
    work = small.work()
    other = SimpleNamespace(task=SimpleNamespace(kind="points"), base=work.base)
    limits = SimpleNamespace(plugins=[], base_models=[], hub=False)
    with pytest.raises(PrivacyError, match="points"):
        check_base(SimpleNamespace(limits=limits), other)  # type: ignore[arg-type]
    assert "scratch_points" not in sys.modules
    limits.plugins.append("tasks:points")
    check_base(SimpleNamespace(limits=limits), other)  # type: ignore[arg-type]


def test_an_entry_that_is_no_task_is_refused(installed: None, tmp_path: Path) -> None:
    (tmp_path / "scratch_points.py").write_text("KIND = 3\n")
    with pytest.raises(ConfigError, match="no TaskKind"):
        task_kind("points")
