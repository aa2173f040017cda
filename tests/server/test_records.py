"""Rows say what their numbers mean, whichever way the main score counts."""

from __future__ import annotations

from typing import Any

import pytest

from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.metrics_file import declared
from server.records import score_rows, stage_rows_of

HITS = Metric("hits", "higher", "", 5.0)
COST = Metric("cost", "lower", "nats", 10.0)
ACCURACY = Metric("accuracy", "higher", "share", 1.0)


def two_stages(main: Metric, first: float, later: float) -> dict[str, Any]:
    """The rows of the second of two stages, by metric; ``first`` and ``later``: of the first task at both ends."""
    name, rows = main.name, list[dict[str, Any]]()
    for stage, (one, two) in enumerate([(first, 1.0), (later, 2.0)]):
        scores = {"one": {name: one}, "two": {name: two}}
        rows += stage_rows_of(rows, stage + 1, stage, ["one", "two"], scores, main)
    return {row["metric"]: row for row in rows if row["stage"] == 1}


@pytest.mark.parametrize(("main", "first", "later"), [(HITS, 4.0, 3.0), (COST, 3.0, 4.0)])
def test_what_became_worse_is_forgotten_whichever_way_the_score_counts(
    main: Metric, first: float, later: float
) -> None:
    worse, better = two_stages(main, first, later), two_stages(main, later, first)
    assert worse["forgetting"]["value"] == pytest.approx(1.0)
    assert better["forgetting"]["value"] == pytest.approx(-1.0)
    assert worse["bwt"]["value"] == pytest.approx(-1.0)
    assert {worse[name]["better"] for name in ("forgetting", "bwt")} == {"lower", "higher"}


@pytest.mark.parametrize("main", [HITS, COST])
def test_metrics_that_are_scores_keep_name_direction_and_unit_of_the_main_one(main: Metric) -> None:
    rows = two_stages(main, 4.0, 3.0)
    average = rows[f"average_{main.name}"]
    assert average["value"] == pytest.approx(2.5)
    assert rows["la"]["value"] == pytest.approx(3.0)
    for row in (average, rows["la"], rows["aia"], rows["r_matrix"]):
        assert (row["better"], row["unit"], row["bound"]) == (main.better, main.unit, main.bound)
        assert row["of"] == main.name
    assert ("knowledge_retention" in rows) == (main is HITS)


def test_a_share_has_its_margin_beside_it_and_no_other_score_has() -> None:
    scores = {"one": {"accuracy": 0.8, "cost": 1.5}}
    rows = score_rows(3, 0, scores, {"one": 50}, lambda _: (ACCURACY, COST), "test_")
    assert [row["metric"] for row in rows] == ["test_accuracy", "test_cost"]
    assert rows[0]["half_width"] == pytest.approx(0.13, abs=0.01)
    assert "half_width" not in rows[1]
    assert declared(rows)["test_cost"].better == "lower"
    assert rows[0]["n"] == 50
