"""The numbers of a run, and an outcome as a file: an epsilon never without delta, unit and accountant."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.compare.measures import MEASURES, Facts, before, final, measure
from llmchain_fl.compare.outcome import Epsilon, load, measured, save
from llmchain_fl.compare.plan import Cell, Comparison
from llmchain_fl.compare.run import results_of
from llmchain_fl.config.read import read_config
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import RunError
from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.report.readings import Readings
from llmchain_fl.run_dir import RunDir
from llmchain_fl.scenario import find_scenario

Row = dict[str, Any]


def row(round: int, stage: int, metric: str, value: float, task: str = "a", **more: Any) -> Row:
    return {"round": round, "stage": stage, "scope": "global", "site": None, "task": task, "metric": metric,
            "value": value, "n": 10, **more}  # fmt: skip


def stream() -> list[Row]:
    """Two stages of one round: a is learned to 0.8 and falls to 0.6, b goes 0.1, 0.2, 0.9."""
    scores = {0: (0.3, 0.1), 1: (0.8, 0.2), 2: (0.6, 0.9)}
    rows = [row(n, n - 1, "accuracy", v, t) for n, pair in scores.items() for t, v in zip("ab", pair, strict=True)]
    rows += [row(n, n - 1, "loss", 10 * v, t) for n, pair in scores.items() for t, v in zip("ab", pair, strict=True)]
    rows += [row(n, n - 1, "r_matrix", v, t) for n in (1, 2) for t, v in zip("ab", scores[n], strict=True)]
    for n in (1, 2):
        rows += [row(n, n - 1, "bytes_up", 100.0 * n, scope="site", site=site) for site in ("s0", "s1")]
        rows += [row(n, n - 1, "bytes_down", 30.0, scope="site", site=site) for site in ("s0", "s1")]
        rows += [row(n, n - 1, "seconds", 4.0, scope="run")]
    rows += [row(2, 1, "accuracy", v, "all", scope="site", site=site) for site, v in (("s0", 0.7), ("s1", 0.4))]
    return rows


def numbers(play: str = "sequence", rows: list[Row] | None = None) -> dict[str, float]:
    facts = Facts(Readings(rows or stream()), play)
    return {name: measure(name).of(facts) for name in (*MEASURES, "accuracy", "loss")}


def test_the_numbers_of_a_stream_are_those_of_the_definitions() -> None:
    found = numbers()
    assert found["accuracy"] == found["average_accuracy"] == pytest.approx(0.75)
    assert found["la"] == pytest.approx(0.85)
    assert found["forgetting"] == pytest.approx(0.2)
    assert found["bwt"] == pytest.approx(-0.2)
    assert found["loss"] == pytest.approx(7.5)
    assert found["bytes"] == 2 * (100 + 200 + 30 + 30)
    assert (found["bytes_up"], found["bytes_down"], found["seconds"]) == (150, 30, 8)
    assert (found["worst_site"], found["mean_site"]) == (0.4, pytest.approx(0.55))
    assert before(Facts(Readings(stream()))) == pytest.approx(0.2)


def test_with_all_tasks_at_once_nothing_can_be_forgotten_and_alone_a_task_has_the_score_of_its_own_stage() -> None:
    joint, alone = numbers("joint"), numbers("alone")
    assert joint["average_accuracy"] == pytest.approx(0.75)
    assert alone["average_accuracy"] == alone["la"] == pytest.approx(0.85)
    for name in ("forgetting", "bwt", "aia", "knowledge_retention"):
        assert math.isnan(joint[name])
        assert math.isnan(alone[name])
    assert math.isnan(joint["la"])


def test_records_kept_for_the_end_make_the_final_score() -> None:
    kept = [row(2, 1, "test_accuracy", 0.5, task) for task in "ab"]
    assert final(Facts(Readings([*stream(), *kept])), "accuracy") == 0.5


def test_a_score_that_was_not_measured_is_no_number() -> None:
    assert math.isnan(numbers(rows=[row(0, -1, "loss", 2.0)])["accuracy"])
    assert math.isnan(numbers(rows=[row(0, -1, "loss", 2.0)])["bytes_up"])


def test_which_way_is_better_follows_from_what_the_runs_declare() -> None:
    zeal, cost = Metric("zeal", "higher", "share"), Metric("cost", "lower")
    first = {"zeal": zeal, "cost": cost}
    assert measure("cost").lower_is_better(first)
    assert not measure("zeal").lower_is_better(first)
    assert not measure("la").lower_is_better(first)
    assert not measure("bwt").lower_is_better(first)
    assert measure("forgetting").lower_is_better(first)
    second = {"cost": cost, "zeal": zeal}
    assert measure("la").lower_is_better(second)
    assert measure("worst_site").lower_is_better(second)
    assert not measure("zeal").lower_is_better(second)
    assert not measure("bwt").lower_is_better(second)
    assert (measure("forgetting").unit(first), measure("forgetting").unit(second)) == ("share", "")


def a_run(folder: Path, rows: list[Row], privacy: dict[str, Any]) -> Any:
    config = read_config(find_scenario("demo-lora"))
    run = RunDir.create(folder, to_toml(config))
    run.append_rows(rows)
    run.write_privacy(privacy)
    return measured(Cell({"rule": "ffa"}, 3, ("seed = 3",)), run, config)


PRIVACY = {"private": True, "delta": 1e-5, "unit": "person", "accountant": "pld"}


def test_an_outcome_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    spent = PRIVACY | {"sites": {"s0": {"epsilon": 2.5}, "s1": {"epsilon": 3.25}}}
    outcome = a_run(tmp_path / "run", stream(), spent)
    assert outcome.epsilon == Epsilon(3.25, 1e-5, "person", "pld")
    assert outcome.scores["b"] == [[0, 0.1], [1, 0.2], [2, 0.9]]
    assert load(tmp_path) is None
    save(tmp_path, outcome)
    assert load(tmp_path) == outcome
    assert [(name, metric.better) for name, metric in outcome.metrics.items()] == [
        ("accuracy", "higher"),
        ("loss", "lower"),
    ]
    unbounded = replace(outcome, epsilon=outcome.epsilon._replace(value=math.inf))
    save(tmp_path, unbounded)
    assert load(tmp_path) == unbounded
    (tmp_path / "cell.json").write_text('{"labels": {}}')
    with pytest.raises(RunError, match="is damaged"):
        load(tmp_path)


def test_a_cell_of_an_earlier_version_keeps_its_score(tmp_path: Path) -> None:
    outcome = a_run(tmp_path / "run", stream(), {})
    save(tmp_path, outcome)
    old = json.loads((tmp_path / "cell.json").read_text())
    del old["metrics"]
    (tmp_path / "cell.json").write_text(json.dumps(old | {"metric": "loss"}))
    found = load(tmp_path)
    assert found is not None
    assert [(name, metric.better) for name, metric in found.metrics.items()] == [("loss", "lower")]


def test_an_epsilon_without_its_terms_is_refused(tmp_path: Path) -> None:
    told = [*stream(), row(2, 1, "epsilon", 3.0, scope="site", site="s0", unit="person", accountant="pld")]
    with pytest.raises(RunError, match="without delta, unit and accountant"):
        a_run(tmp_path / "run", told, {})


def test_no_epsilon_in_the_results_is_a_bare_number(comparison: Comparison, made: Callable[..., Any]) -> None:
    found = made(comparison, {("ffa", "0.5", 1): {"accuracy": 0.5, "epsilon": 3.0}, ("fedit", "0.5", 1): {}})
    text = json.loads(json.dumps(results_of(comparison, found)))
    seen = []

    def walk(value: Any, key: str = "") -> None:
        if "epsilon" in key:
            seen.append(value)
            assert value is None or set(value) == {"value", "delta", "unit", "accountant", "noise"}
        elif isinstance(value, dict):
            for inner, part in value.items():
                walk(part, inner)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(text)
    assert sorted(str(value and value["value"]) for value in seen) == ["3.0", "3.0", "None", "None"]


def test_results_hold_every_cell_and_every_mean(comparison: Comparison, made: Callable[..., Any]) -> None:
    numbers = {("ffa", "0.5", 1): {"accuracy": 0.5, "bytes": 4.0}, ("ffa", "0.5", 2): {"accuracy": 0.7, "bytes": 4.0}}
    found = results_of(comparison, made(comparison, numbers))
    assert [cell["seed"] for cell in found["cells"]] == [1, 2]
    assert found["cells"][0]["scores"] == {"all": [[0.0, 0.5], [1.0, 0.5]]}
    (mean,) = found["means"]
    assert mean["labels"] == {"rule": "ffa", "alpha": "0.5"}
    assert mean["numbers"]["accuracy"] == pytest.approx({"mean": 0.6, "sd": 0.1 * math.sqrt(2), "n": 2})
