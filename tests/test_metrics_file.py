"""What a row of ``metrics.jsonl`` says about its own number."""

from __future__ import annotations

import math
from pathlib import Path

from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.metrics_file import MOST_SITES, append, by_site, declaration, declared, lines, main_metric

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


def of_sites(count: int, metric: str = "bytes_up", **more: object) -> list[dict[str, object]]:
    return [row(metric, "site", site=f"site-{n:04d}", **more) | {"value": float(n % 7)} for n in range(count)]


def test_up_to_a_bound_a_round_has_a_row_a_site() -> None:
    rows = of_sites(MOST_SITES) + of_sites(3, "epsilon")
    assert by_site(rows) == rows
    assert by_site([]) == []


def test_beyond_it_one_row_tells_how_all_of_them_lie() -> None:
    rows = of_sites(MOST_SITES + 1)
    (one,) = by_site(rows)
    values = sorted(float(str(each["value"])) for each in rows)
    assert (one["scope"], one["site"], one["n"], one["metric"]) == ("sites", None, len(rows), "bytes_up")
    assert (one["value"], one["total"]) == (values[-1], sum(values))  # the largest: an epsilon is never told too low
    assert one["quartiles"] == [values[0], values[50], values[100], values[150], values[-1]]
    assert one["largest"] == {f"site-{n:04d}": 6.0 for n in range(6, 6 + 8 * 7, 7)}


def test_reasons_are_counted_and_metrics_and_tasks_kept_apart() -> None:
    rows = of_sites(MOST_SITES + 1, "refused", reason="wire") + of_sites(MOST_SITES + 2, "refused", task="cards")
    rows += of_sites(2, "away")
    first, second, *others = by_site(rows)
    assert first["reason"] == {"wire": MOST_SITES + 1}
    assert (second["n"], second["task"]) == (MOST_SITES + 2, "cards")
    assert others == of_sites(2, "away")
