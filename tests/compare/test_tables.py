"""The tables: who stands where, in which unit, with which mark and note."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llmchain_fl.compare.outcome import Epsilon, missed
from llmchain_fl.compare.plan import Comparison
from llmchain_fl.compare.read import build_comparison
from llmchain_fl.compare.spread import Groups
from llmchain_fl.compare.table import difference_tables, number_table, score_table, tables_of

NUMBERS = {
    ("ffa", "0.5", 1): {"accuracy": 0.70, "bytes": 2e6, "seconds": 10.0},
    ("ffa", "0.5", 2): {"accuracy": 0.74, "bytes": 2e6, "seconds": 20.0},
    ("fedit", "0.5", 1): {"accuracy": 0.80, "bytes": 4e6},
    ("fedit", "0.5", 2): {"accuracy": 0.82, "bytes": 4e6},
    ("ffa", "0.1", 1): {"accuracy": 0.60, "bytes": 2e6},
    ("ffa", "0.1", 2): {"accuracy": 0.50, "bytes": 2e6},
}


def texts(table: Any) -> dict[tuple[str, ...], list[str]]:
    return {labels: [str(entry) for entry in entries] for labels, entries in table.rows}


def test_the_score_stands_with_the_last_axis_across(comparison: Comparison, made: Callable[..., Any]) -> None:
    table = score_table(Groups.of(comparison, made(comparison, NUMBERS)))
    assert (table.labels, table.columns) == (("rule",), ("0.5", "0.1"))
    assert texts(table) == {("ffa",): ["72.0 ± 2.8 ~", "55.0 ± 7.1"], ("fedit",): ["81.0 ± 1.4 *", "–"]}
    assert "mean ± standard deviation over n = 2 (seed)" in table.notes
    assert "* best mean of its column; ~ not told apart from it (paired by seed, 95 %)" in table.notes


def test_scores_are_ranked_among_rows_whose_other_labels_are_the_same(
    tree: dict[str, Any], made: Callable[..., Any]
) -> None:
    rank = {"name": "rank", "values": {"1": {"adapter.rank": 1}, "8": {"adapter.rank": 8}}}
    comparison = build_comparison("x", {**tree, "seeds": [1, 2], "axis": [*tree["axis"], rank]})
    scores = {("ffa", "0.5"): 0.7, ("fedit", "0.5"): 0.8, ("ffa", "0.1"): 0.5, ("fedit", "0.1"): 0.4}
    found = {
        (*labels, rank, seed): {"accuracy": value}
        for labels, value in scores.items()
        for rank in ("1", "8")
        for seed in (1, 2)
    }
    table = score_table(Groups.of(comparison, made(comparison, found)))
    assert texts(table)["fedit", "0.5"] == ["80.0 ± 0.0 *", "80.0 ± 0.0 *"]
    assert texts(table)["ffa", "0.1"] == ["50.0 ± 0.0 *", "50.0 ± 0.0 *"]
    assert texts(table)["fedit", "0.1"] == ["40.0 ± 0.0", "40.0 ± 0.0"]
    assert "* best mean of its column at the same alpha" in " ".join(table.notes)


def test_every_number_stands_in_a_line_and_is_ranked_at_equal_other_labels(
    comparison: Comparison, made: Callable[..., Any]
) -> None:
    table = number_table(Groups.of(comparison, made(comparison, NUMBERS)))
    assert table.columns == ("accuracy, %", "all bytes", "time")
    assert texts(table)["ffa", "0.5"] == ["72.0 ± 2.8 ~", "2.00 MB", "15.0 s"]
    assert texts(table)["fedit", "0.5"][0] == "81.0 ± 1.4 *"
    assert "* best mean of its column at the same alpha" in " ".join(table.notes)
    both = NUMBERS | {("fedit", "0.1", 1): {"accuracy": 0.2}}
    table = number_table(Groups.of(comparison, made(comparison, both)))
    assert {labels: entries[0] for labels, entries in texts(table).items()} == {
        ("ffa", "0.5"): "72.0 ± 2.8 ~",
        ("ffa", "0.1"): "55.0 ± 7.1 *",
        ("fedit", "0.5"): "81.0 ± 1.4 *",
        ("fedit", "0.1"): "20.0, n=1 ~",  # said wherever a combination has fewer repetitions than the others
    }


def test_refused_and_failed_cells_are_numbered_with_their_reason(
    comparison: Comparison, made: Callable[..., Any]
) -> None:
    cells = {cell.slug: cell for cell in comparison.cells()}
    found = made(comparison, NUMBERS)
    found += [missed(cells[f"fedit-0.1-seed{n}"], "refused", "ranks differ") for n in (1, 2)]
    found += [missed(cells["ffa-0.1-seed3"], "failed", "out of memory")]
    table = score_table(Groups.of(comparison, found))
    assert texts(table)["fedit",][1] == "refused (2)"
    assert texts(table)["ffa",][1] == "55.0 ± 7.1, n=2 (1)"
    assert table.notes[-2:] == ["(1) failed: out of memory", "(2) refused: ranks differ"]


def test_a_score_is_ranked_and_written_as_the_runs_declare_it(tree: dict[str, Any], made: Callable[..., Any]) -> None:
    comparison = build_comparison("x", {**tree, "score": "loss", "seeds": [1, 2]})
    numbers = {(rule, "0.5", n): {"loss": v} for rule, v in (("ffa", 2.5), ("fedit", 2)) for n in (1, 2)}
    table = score_table(Groups.of(comparison, made(comparison, numbers)))
    assert table.title == "loss by alpha"
    assert texts(table) == {("ffa",): ["2.500 ± 0.000"], ("fedit",): ["2.000 ± 0.000 *"]}


def test_a_loss_beside_an_accuracy_keeps_its_own_unit_and_direction(
    tree: dict[str, Any], made: Callable[..., Any]
) -> None:
    comparison = build_comparison("x", {**tree, "report": ["loss", "la"]})
    numbers = {("ffa", "0.5", n): {"accuracy": 0.5, "loss": 2.5, "la": 0.4} for n in (1, 2)}
    numbers |= {("fedit", "0.5", n): {"loss": 2.6, "la": 0.3} for n in (1, 2)}
    table = number_table(Groups.of(comparison, made(comparison, numbers)))
    assert table.columns == ("accuracy, %", "loss", "learned (LA), %")
    assert texts(table)["ffa", "0.5"][1:] == ["2.500 ± 0.000 *", "40.0 ± 0.0 *"]
    swapped = [replace(o, metrics=dict(reversed(o.metrics.items()))) for o in made(comparison, numbers)]
    table = number_table(Groups.of(comparison, swapped))
    assert table.columns[2] == "learned (LA)"
    assert texts(table)["fedit", "0.5"][1:] == ["2.600 ± 0.000", "0.300 ± 0.000 *"]


def test_an_epsilon_stands_with_its_terms_once_if_they_are_the_same_else_each_time(
    comparison: Comparison, made: Callable[..., Any]
) -> None:
    private = {("ffa", "0.5", 1): {"epsilon": 5.971}, ("ffa", "0.5", 2): {"epsilon": 5.5}, ("fedit", "0.5", 1): {}}
    found = made(comparison, private)
    table = number_table(Groups.of(comparison, found))
    assert texts(table)["ffa", "0.5"][-1] == "5.98"
    assert texts(table)["fedit", "0.5"][-1] == "none"
    assert any(
        note.endswith("delta 1e-5, per record, PLD accountant, noise added at each site") for note in table.notes
    )
    assert any(
        "delta 1e-5, per record, PLD accountant, noise added at each site" in note
        for note in score_table(Groups.of(comparison, found)).notes
    )
    found[1] = replace(found[1], epsilon=Epsilon(6.5, 1e-6, "person", "rdp"))
    table = number_table(Groups.of(comparison, found))
    assert texts(table)["ffa", "0.5"][-1] == "6.50 (delta 1e-6, per person, RDP accountant, noise added at each site)"


def test_differences_are_to_the_baseline_at_the_same_other_labels(
    tree: dict[str, Any], made: Callable[..., Any]
) -> None:
    tree["axis"][0] = {**tree["axis"][0], "baseline": "ffa"}
    comparison = build_comparison("x", tree)
    (table,) = difference_tables(Groups.of(comparison, made(comparison, NUMBERS)))
    # 0.10 at seed 1, 0.08 at seed 2: 9 points, sd sqrt(2); t(0.975, 1) = 12.706: 12.706 sqrt(2) / sqrt(2)
    assert texts(table) == {("fedit", "0.5"): ["+9.0 ± 12.7 (2 of 2)"]}
    assert difference_tables(Groups.of(build_comparison("x", {**tree, "axis": tree["axis"][1:]}), [])) == []


def test_guards_stand_in_lines_with_zero_shot_first_and_references_out_of_the_ranking(
    tree: dict[str, Any], made: Callable[..., Any]
) -> None:
    guards = {"naive": {}, "joint": {"train.lr": 0.1}, "alone": {"train.lr": 0.2}, "ema": {"train.lr": 0.3}}
    del tree["report"]
    tree |= {"continual": True, "axis": [{"name": "guard", "baseline": "naive", "values": guards}]}
    comparison = build_comparison("x", tree)
    found = made(
        comparison,
        {
            (guard, seed): {**numbers, "zero": 0.25}
            for guard, numbers in {
                "naive": {"average_accuracy": 0.60, "la": 0.9, "forgetting": 0.3, "bwt": -0.3},
                "joint": {"average_accuracy": 0.95, "play": "joint"},
                "alone": {"average_accuracy": 0.92, "la": 0.92, "play": "alone"},
                "ema": {"average_accuracy": 0.70, "la": 0.8, "forgetting": 0.1, "bwt": -0.1},
            }.items()
            for seed in (1, 2)
        },
    )
    main, gaps = tables_of(comparison, found)
    assert main.columns == ("average accuracy, %", "learned (LA), %", "forgotten (F), points", "BWT, points")
    assert texts(main) == {
        ("zero-shot",): ["25.0 ± 0.0", "–", "–", "–"],
        ("naive",): ["60.0 ± 0.0", "90.0 ± 0.0 *", "30.0 ± 0.0", "-30.0 ± 0.0"],
        ("joint",): ["95.0 ± 0.0", "–", "–", "–"],
        ("alone",): ["92.0 ± 0.0", "92.0 ± 0.0", "–", "–"],
        ("ema",): ["70.0 ± 0.0 *", "80.0 ± 0.0", "10.0 ± 0.0 *", "-10.0 ± 0.0 *"],
    }
    assert texts(gaps)["ema",][0] == "+10.0 ± 0.0 (2 of 2)"
    assert texts(gaps)["ema",][2] == "-20.0 ± 0.0 (2 of 2)"


def test_a_closed_form_head_stands_above_the_rows_of_every_table_of_scores(
    comparison: Comparison, tree: dict[str, Any], made: Callable[..., Any]
) -> None:
    heads = {"0.5": (0.90, 0.92), "0.1": (0.80, 0.80)}
    numbers = {key: {**told, "closed_form_head": heads[key[1]][key[2] - 1]} for key, told in NUMBERS.items()}
    groups = Groups.of(comparison, made(comparison, numbers))
    score, every = score_table(groups), number_table(groups)
    assert score.rows[0][0] == ("closed-form head",)
    assert texts(score)["closed-form head",] == ["91.0 ± 1.4", "80.0 ± 0.0"]
    assert every.rows[0][0] == ("closed-form head", "")
    assert texts(every)["closed-form head", ""][1:] == ["–", "–"]
    for table in (score, every):
        assert sum("all records in one place, without privacy" in note for note in table.notes) == 1
        assert "*" not in str(table.rows[0][1][0])
    for table in tables_of(comparison, made(comparison, NUMBERS)):
        assert not any("closed-form head" in labels for labels, _ in table.rows)
    other = build_comparison("x", {**tree, "score": "bytes"})
    assert ("closed-form head",) not in texts(score_table(Groups.of(other, made(other, numbers))))


def test_markdown_has_a_line_for_each_row_and_keeps_its_columns(
    comparison: Comparison, made: Callable[..., Any]
) -> None:
    cells = comparison.cells()
    found = [*made(comparison, NUMBERS), missed(cells[3], "refused", "a | b")]
    lines = score_table(Groups.of(comparison, found)).markdown().splitlines()
    assert lines[2:6] == [
        "| rule | 0.5 | 0.1 |",
        "| --- | ---: | ---: |",
        "| ffa | 72.0 ± 2.8 ~ | 55.0 ± 7.1 |",
        "| fedit | 81.0 ± 1.4 * | refused (1) |",
    ]
