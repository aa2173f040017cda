from __future__ import annotations

from dataclasses import replace

import numpy as np

from simulations.baselines import Known, baseline_rows, drawn

EAST, WEST = np.eye(4)[[0, 0, 1, 1]], np.eye(4)[[2, 2, 3, 3]]
SITES = {
    "b": Known(WEST, np.array([2, 2, 3, 3])),
    "a": Known(EAST, np.array([0, 0, 1, 1])),
    "none": Known(np.zeros((0, 4)), np.zeros(0, dtype=np.int64)),
}
TEXTS = np.eye(5)[:, [4, 0, 1, 2]]  # no text says which label its records have
TESTS = {("", "all"): Known(np.eye(4), np.arange(4)), ("test_", "west"): Known(np.eye(4)[2:], np.array([2, 3]))}


def test_together_the_sites_know_what_each_alone_does_not() -> None:
    rows = baseline_rows(SITES, TESTS, TEXTS)
    found = {(row["metric"], row["site"], row["task"]): row["value"] for row in rows}
    assert found == {
        ("ridge_all", None, "all"): 1.0, ("test_ridge_all", None, "west"): 1.0,
        ("ridge_alone", "a", "all"): 0.5, ("test_ridge_alone", "a", "west"): 0.0,
        ("ridge_alone", "b", "all"): 0.5, ("test_ridge_alone", "b", "west"): 1.0,
    }  # fmt: skip
    (whole,) = [row for row in rows if row["metric"] == "ridge_all"]
    assert (whole["records"], whole["n"], whole["better"], whole["unit"]) == (8, 4, "higher", "share")
    assert 0 < whole["half_width"] < 1


def test_only_what_can_be_the_answer_is_answered() -> None:
    known = {("", "west"): Known(np.eye(4)[2:], np.array([2, 3]), np.array([2, 3]))}
    rows = baseline_rows({"a": SITES["a"], "b": SITES["b"]}, known, TEXTS[:4], alone=0)
    assert [(row["metric"], row["value"]) for row in rows] == [("ridge_all", 1.0)]


def test_without_a_record_there_is_no_baseline() -> None:
    assert baseline_rows({"none": SITES["none"]}, TESTS, TEXTS) == []


def test_of_many_records_the_same_share_of_every_site_is_drawn_and_the_rows_say_so() -> None:
    held = {site: [{"text": f"{site}{i}"} for i in range(count)] for site, count in (("a", 80), ("b", 20), ("c", 0))}
    found = drawn(held, 50, seed=3)
    assert {site: len(rows) for site, rows in found.items()} == {"a": 40, "b": 10}
    assert all(row in held[site] for site, rows in found.items() for row in rows)
    assert drawn(held, 50, seed=3) == found != drawn(held, 50, seed=4)
    assert drawn(held, 100, seed=3) == {"a": held["a"], "b": held["b"]}
    part = replace(SITES["a"], drawn_of=40)
    row, *_ = baseline_rows({"a": part, "b": SITES["b"]}, TESTS, TEXTS)
    assert (row["records"], row["of_records"]) == (8, 44)
