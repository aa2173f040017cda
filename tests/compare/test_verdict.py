"""What a comparison says: who is told apart from whom, and never an order of single runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmchain_fl.compare.plan import Comparison
from llmchain_fl.compare.read import build_comparison
from llmchain_fl.compare.spread import Groups
from llmchain_fl.compare.verdict import verdict


def said(comparison: Comparison, made: Callable[..., Any], **scores: tuple[float, ...]) -> list[str]:
    """Rule -> its score at each seed, all at alpha 0.5."""
    numbers = {(rule, "0.5", n + 1): {"accuracy": v} for rule, found in scores.items() for n, v in enumerate(found)}
    return verdict(Groups.of(comparison, made(comparison, numbers)))


def test_single_runs_have_no_order(comparison: Comparison, made: Callable[..., Any]) -> None:
    (only,) = said(comparison, made, ffa=(0.7,), fedit=(0.9,))
    assert only.startswith("No ranking: every number")
    assert "fedit" not in only
    assert said(comparison, made, ffa=(0.7,)) == []
    assert verdict(Groups.of(comparison, [])) == []


def test_the_best_is_named_with_its_margin_where_it_is_told_apart(
    comparison: Comparison, made: Callable[..., Any]
) -> None:
    assert said(comparison, made, ffa=(0.70, 0.72, 0.74), fedit=(0.80, 0.83, 0.84)) == [
        "At alpha 0.5, rule fedit (82.3 ± 2.1) is best: 10.3 points (margin 1.4, n = 3) better than ffa, the next."
    ]


def test_those_that_are_not_told_apart_are_named_together(comparison: Comparison, made: Callable[..., Any]) -> None:
    assert said(comparison, made, ffa=(0.70, 0.74), fedit=(0.80, 0.82)) == [
        "At alpha 0.5, rule fedit (81.0 ± 1.4) is not told apart from ffa: ffa is 9.0 points (margin 12.7, n = 2) away."
    ]


def test_who_is_clearly_worse_is_named_beside_those_that_are_not(
    tree: dict[str, Any], made: Callable[..., Any]
) -> None:
    rules = {name: {"train.lr": 0.01 * (n + 1)} for n, name in enumerate("abc")}
    comparison = build_comparison("x", {**tree, "axis": [{"name": "rule", "values": rules}]})
    scores = {"a": (0.9, 0.8, 0.85), "b": (0.8, 0.88, 0.84), "c": (0.5, 0.4, 0.45)}
    numbers = {(rule, n + 1): {"accuracy": v} for rule, found in scores.items() for n, v in enumerate(found)}
    (only,) = verdict(Groups.of(comparison, made(comparison, numbers)))
    assert only.startswith("rule a (85.0 ± 5.0) is not told apart from b: b is 1.0 points (margin ")
    assert only.endswith("; clearly worse: c.")


def test_a_closed_form_head_stands_beside_every_comparison(comparison: Comparison, made: Callable[..., Any]) -> None:
    numbers = {
        (rule, "0.5", n): {"accuracy": 0.8, "closed_form_head": 0.945} for rule in ("ffa", "fedit") for n in (1, 2)
    }
    assert verdict(Groups.of(comparison, made(comparison, numbers)))[-1] == (
        "A closed-form head on the frozen base, from all records in one place, reaches 94.5 ± 0.0 %."
    )
