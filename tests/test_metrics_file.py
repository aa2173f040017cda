"""What a row of ``metrics.jsonl`` says about its own number."""

from __future__ import annotations

import math
from pathlib import Path

from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.metrics_file import append, declaration, declared, lines, main_metric

HITS = Metric("hits", "higher", "", 5.0)
COST = Metric("cost", "lower", "share")


def row(metric: str, scope: str = "global", **more: object) -> dict[str, object]:
    return {"round": 0, "metric": metric, "value": 1.0, "scope": scope, **more}


def test_a_declaration_survives_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.touch()
    append(path, [row("hits") | declaration(HITS), row("cost") | declaration(COST), row("seconds", "run")])
    read = [found for _, found in lines(path)]
    assert declared(read) == {"hits": HITS, "cost": COST}
    assert main_metric(read) == HITS


def test_scores_of_earlier_versions_keep_their_direction() -> None:
    found = declared([row("accuracy"), row("test_loss"), row("local_accuracy", "site"), row("bytes_up", "site")])
    assert {name: metric.better for name, metric in found.items()} == {
        "accuracy": "higher", "test_loss": "lower", "local_accuracy": "higher",
    }  # fmt: skip
    assert found["test_loss"].name == "test_loss"


def test_the_first_declaration_of_a_name_counts() -> None:
    rows = [row("hits") | declaration(HITS), row("hits", better="lower", unit="", bound=None)]
    assert declared(rows)["hits"] == HITS


def test_the_main_score_is_the_first_of_the_global_adapter() -> None:
    rows = [row("majority", "baseline", better="higher"), row("r_matrix", better="lower"), row("loss"), row("accuracy")]
    assert main_metric(rows).name == "loss"
    assert main_metric([row("seconds", "run")]) == Metric("score", "higher")


def test_a_gain_is_positive_where_it_is_better() -> None:
    assert HITS.gain(1.0, 3.0) == 2.0
    assert COST.gain(1.0, 3.0) == -2.0
    assert math.isinf(COST.bound)
