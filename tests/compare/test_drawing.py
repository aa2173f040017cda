"""The plots and the page: everything is in them, nothing outside is needed."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from llmchain_fl.compare import plot
from llmchain_fl.compare.held import held_equal
from llmchain_fl.compare.outcome import missed
from llmchain_fl.compare.page import page
from llmchain_fl.compare.plan import Comparison, simulate_command
from llmchain_fl.compare.plot import Layout, Marking, against_epsilon, learned_against_forgotten, scores_against_bytes
from llmchain_fl.compare.read import build_comparison
from llmchain_fl.compare.spread import Groups
from llmchain_fl.compare.table import tables_of
from llmchain_fl.config.read import read_config
from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.report.figure import by_itself as alone
from llmchain_fl.scenario import find_scenario

RULES = [f"rule{n}" for n in range(10)]


@pytest.fixture
def ten() -> Comparison:
    values = {rule: {"train.lr": 0.01 * (n + 1)} for n, rule in enumerate(RULES)}
    alphas = {"0.5": {"sites.alpha": 0.5}, "0.1": {"sites.alpha": 0.1}}
    tree = {"scenario": "demo-lora", "axis": [{"name": "rule", "values": values}, {"name": "alpha", "values": alphas}]}
    return build_comparison("ten", tree)


def numbers(comparison: Comparison) -> dict[tuple[Any, ...], dict[str, float]]:
    return {
        (*cell.labels.values(), cell.seed): {"accuracy": 0.5 + 0.01 * n, "bytes": 1e6 * (1 + n % 7)}
        for n, cell in enumerate(comparison.cells([1, 2]))
    }


def test_the_plot_names_every_rule_and_every_panel_and_is_a_file_of_its_own(
    ten: Comparison, made: Callable[..., Any]
) -> None:
    svg = alone(scores_against_bytes(Groups.of(ten, made(ten, numbers(ten)))))
    root = ET.fromstring(svg)
    said = {element.text for element in root.iter() if element.text}
    assert set(RULES) <= said
    assert {"alpha 0.5", "alpha 0.1", "bytes sent, both ways", "accuracy, %"} <= said
    assert not re.search(r'href="(?!#)|url\((?!#)', svg)


def test_every_combination_is_one_point_at_its_means_with_its_spreads(
    ten: Comparison, made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    points: list[tuple[float, float, float, int]] = []
    monkeypatch.setattr(plot, "point", lambda _axes, x, y, _look: points.append((x.mean, y.mean, y.sd, y.n)))
    scores_against_bytes(Groups.of(ten, made(ten, numbers(ten))))
    # cell n has the score 0.5 + 0.01 n; its second seed comes 20 cells later
    expected = [(1e6 * (1 + (n % 7 + (n + 20) % 7) / 2), 60 + n, 20 / 2**0.5, 2) for n in range(20)]
    assert points == [pytest.approx(each) for each in expected]


def test_a_loss_plot_says_which_way_is_better(ten: Comparison, made: Callable[..., Any]) -> None:
    tree = {"scenario": "demo-lora", "score": "loss", "axis": [{"name": "a", "values": {"x": {}}}]}
    loss = build_comparison("x", tree)
    found = made(loss, {("x", 1): {"loss": 2.0, "bytes": 1e6}})
    assert "loss, lower is better" in scores_against_bytes(Groups.of(loss, found))
    assert scores_against_bytes(Groups.of(loss, made(loss, {("x", 1): {"loss": 2.0}}))) == ""
    assert scores_against_bytes(Groups.of(ten, [missed(cell, "failed", "x") for cell in ten.cells()])) == ""


def test_no_two_of_many_rules_look_alike() -> None:
    labels = [f"r{n}" for n in range(77)]
    marking = Marking(labels)
    looks = {tuple(marking.of(label)[key] for key in ("color", "marker")) for label in labels}
    assert len(looks) == 77


def test_marks_tell_the_rule_and_panels_the_last_other_axis(tree: dict[str, Any]) -> None:
    first = build_comparison("x", tree)
    assert (Layout.of(first).marked.name, Layout.of(first).panels.name) == ("rule", "alpha")  # type: ignore[union-attr]
    turned = build_comparison("x", {**tree, "axis": tree["axis"][::-1]})
    assert (Layout.of(turned).marked.name, Layout.of(turned).panels.name) == ("rule", "alpha")  # type: ignore[union-attr]
    single = build_comparison("x", {**tree, "axis": tree["axis"][:1]})
    assert Layout.of(single).panels is None


@pytest.fixture
def guards() -> Comparison:
    tree = {
        "scenario": "demo-lora",
        "continual": True,
        "axis": [
            {"name": "guard", "values": {"naive": {}, "ema": {"continual.guards": ["ema"]}}},
            {"name": "privacy", "values": {"none": {"privacy.enabled": False}, "8": {"privacy.epsilon": 8.0}}},
        ],
    }
    return build_comparison("guards", tree)


def test_guards_are_drawn_by_what_they_learn_and_forget_and_at_each_epsilon(
    guards: Comparison, made: Callable[..., Any]
) -> None:
    found = {("naive", "none", 1): {"la": 0.9, "forgetting": 0.3}, ("ema", "none", 1): {"la": 0.8, "forgetting": 0.1}}
    found |= {(g, "8", 1): {"la": 0.7, "forgetting": 0.2, "epsilon": 7.99} for g in ("naive", "ema")}
    outcomes = made(guards, found)
    groups = Groups.of(guards, outcomes)
    texts = {e.text for e in ET.fromstring(alone(learned_against_forgotten(groups))).iter()}
    assert {"naive", "ema", "learned (LA), %", "forgotten (F), points", "privacy 8"} <= texts
    texts = {e.text for e in ET.fromstring(alone(against_epsilon(groups))).iter()}
    assert {
        "7.99",
        "none",
        "naive",
        "epsilon spent (delta 1e-5, per record, PLD accountant, noise added at each site)",
    } <= texts
    assert against_epsilon(Groups.of(guards, outcomes[:2])) == ""


def test_the_page_holds_tables_plots_what_was_equal_and_the_commands_and_loads_nothing(
    ten: Comparison, made: Callable[..., Any]
) -> None:
    outcomes = [*made(ten, numbers(ten)), missed(ten.cells([3])[0], "refused", "<script>alert(1)</script>")]
    configs = [read_config(find_scenario("demo-lora"), outcome.settings) for outcome in outcomes]
    tables, plots = tables_of(ten, outcomes), {"scores-against-bytes": scores_against_bytes(Groups.of(ten, outcomes))}
    text = page(ten, configs, outcomes, tables, plots, "llmchain-fl compare ten --jobs 2")
    assert text.count("<table") == 3
    assert all(rule in text for rule in RULES)
    assert "llmchain-fl compare ten --jobs 2" in text
    assert "--set sites.alpha=0.1" in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"""(?:src|href)=["'](?!#)|@import|url\((?!#)""", text)


@pytest.mark.parametrize(("better", "way"), [("higher", "Up"), ("lower", "Down")])
def test_the_words_under_a_plot_say_which_way_is_better(
    guards: Comparison, made: Callable[..., Any], better: Any, way: str
) -> None:
    found = {(guard, "none", 1): {"la": 0.9, "forgetting": 0.3} for guard in ("naive", "ema")}
    outcomes = [replace(outcome, metrics={"zeal": Metric("zeal", better)}) for outcome in made(guards, found)]
    groups = Groups.of(guards, outcomes)
    plots = {"learned-against-forgotten": learned_against_forgotten(groups)}
    text = page(guards, [], outcomes, tables_of(guards, outcomes), plots, "llmchain-fl compare guards")
    assert f"{way} and to the left is better" in text


def test_what_was_held_equal_names_what_was_not(ten: Comparison) -> None:
    configs = [read_config(find_scenario("demo-lora"), cell.settings) for cell in ten.cells([1])]
    lines = {group: (equal, differs) for group, equal, differs in held_equal(configs, [1, 2])}
    assert lines["Optimiser at the sites"][1] == "lr"
    assert "steps 4" in lines["Optimiser at the sites"][0]
    assert lines["Split"][1] == "alpha"
    assert lines["Privacy"][0].startswith("enabled True, unit person, epsilon 8")
    assert lines["Stages and rounds"][0].startswith("cards: 3 rounds, payments: 3 rounds, accounts: 3 rounds")
    assert lines["Seeds"][0].startswith("1, 2;")
    off = [read_config(find_scenario("demo-lora"), ["privacy.enabled=false"])]
    assert ("Privacy", "none", "") in held_equal(off, [1])


def test_a_cell_can_be_played_alone_by_its_command(comparison: Comparison, made: Callable[..., Any]) -> None:
    (outcome,) = made(comparison, {("ffa", "0.5", 2): {}})
    assert simulate_command(comparison.scenario, outcome.settings) == (
        "llmchain-fl simulate demo-lora --set privacy.enabled=false --set 'continual.guards=[]' "
        "--set 'aggregation.rule=\"ffa\"' --set train.lr=0.01 --set seed=2"
    )
