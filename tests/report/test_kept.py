"""The table of R, guards and probes, and how the page shows them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.continual.federated_metrics import spatial_forgetting
from llmchain_fl.continual.probe_sets import probe_deltas
from llmchain_fl.report import kept, plots
from llmchain_fl.report.page import write_report
from llmchain_fl.report.readings import Readings
from llmchain_fl.report.tables import forward, summary_table
from llmchain_fl.run_dir import RunDir

Rows = list[dict[str, Any]]
Maker = Callable[..., Rows]


TWO = ([0.1, 0.2], [0.9, 0.3], [0.8, 0.7])


def guard(round: int, name: str, value: float, whose: str = "", what: str = "") -> dict[str, Any]:
    told = {"guard": whose, "what": what} if whose else {}
    row = {"round": round, "stage": round - 1, "scope": "run", "site": None, "task": "all", "n": None}
    return row | {"metric": f"guard_{name}", "value": value, **told}


# -- the table of R ---------------------------------------------------------------------------------------------------


def test_the_table_has_a_line_before_training_and_one_for_each_stage_that_has_ended(stream: Any) -> None:
    table = kept.matrix(Readings(stream(*TWO, n=1000)))
    assert [label for label, _ in table] == ["untrained", "after stage 1 (a)", "after stage 2 (b)"]
    assert [[c.text for c in line] for _, line in table] == [["10.0%", "20.0%"], ["90.0%", "30.0%"], ["80.0%", "70.0%"]]
    assert [[c.own for c in line] for _, line in table] == [[False, False], [True, False], [False, True]]
    assert [[c.mark for c in line] for _, line in table] == [["", ""], ["", ""], ["▼ 10.0", ""]]
    assert kept.matrix(Readings([])) == []


def test_a_clear_change_since_the_tasks_own_stage_is_marked_and_one_within_chance_is_not(stream: Any) -> None:
    up = kept.matrix(Readings(stream([0.1, 0.2], [0.7, 0.3], [0.8, 0.7], n=1000)))
    assert up[2][1][0].mark == "▲ 10.0"
    still = kept.matrix(Readings(stream([0.1, 0.2], [0.8, 0.3], [0.8, 0.7], n=1000)))
    assert still[2][1][0].mark == ""
    loss = kept.matrix(Readings(stream([4.0, 4.0], [2.0, 4.0], [2.5, 3.0], metric="loss", half_width=0.1)))
    assert loss[2][1][0].mark == "▼ 0.500"
    few = kept.matrix(Readings(stream([0.1, 0.2], [0.7, 0.3], [0.8, 0.7], n=50)))
    assert few[2][1][0].mark == ""


def lightness(colour: str) -> float:
    """Relative luminance, WCAG 2."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.booleans())
def test_darker_is_better_and_dark_text_can_be_read_on_every_cell(
    stream: Any, values: list[float], lossy: bool
) -> None:
    rows = stream([0.0, 0.0], values[:2], values[2:], metric="loss" if lossy else "accuracy")
    cells = [c for _, line in kept.matrix(Readings(rows))[1:] for c in line]
    light = [lightness(c.colour) for c in cells]
    ranked = sorted(range(4), key=lambda i: values[i], reverse=not lossy)
    assert all(light[a] <= light[b] + 1e-6 for a, b in pairwise(ranked))
    ink = lightness("#1f2933")
    assert all((each + 0.05) / (ink + 0.05) > 7.0 for each in light)


def test_a_small_spread_is_not_blown_up_and_a_gap_has_no_colour(stream: Any) -> None:
    table = kept.matrix(Readings(stream([0.1, 0.1], [0.50, 0.51], [0.51, math.nan])))
    assert (
        max(lightness(c.colour) for _, line in table[1:] for c in line if c.colour)
        - min(lightness(c.colour) for _, line in table[1:] for c in line if c.colour)
        < 0.1
    )
    assert (table[2][1][1].text, table[2][1][1].colour) == ("–", "")


# -- guards and probes ------------------------------------------------------------------------------------------------


def test_each_number_of_a_guard_has_a_line_in_words() -> None:
    rows = [guard(r, "gate_accepted", a, "gate", "share of the step") for r, a in ((1, 1.0), (2, 0.5), (3, 0.0))]
    rows += [guard(3, "my_own_lost", 0.125, "my_own", "lost"), guard(2, "own_thing_seen", math.nan)]
    rows += [guard(3, "new_odd_thing", 7.0)]
    lines = kept.guard_lines(Readings(rows))
    assert [(line.guard, line.what) for line in lines] == [
        ("gate", "share of the step"),
        ("my_own", "lost"),
        ("new", "odd thing"),
    ]
    assert (lines[0].last, lines[0].mean, lines[0].span, lines[0].rounds) == ("0", "0.5", "0 to 1", 3)
    assert lines[1].span == "0.125"
    assert kept.guard_lines(Readings([])) == []


def test_the_plot_of_guards_has_a_panel_for_each_number_that_changed() -> None:
    rows = [guard(r, "gate_accepted", r / 4) for r in (1, 2, 3)] + [guard(r, "gate_refused", 1.0) for r in (1, 2, 3)]
    svg = plots.guards(Readings(rows))
    assert "accepted" in svg
    assert "refused" not in svg
    assert plots.guards(Readings([guard(1, "gate_refused", 1.0)])) == ""
    many = plots.guards(Readings([guard(r, f"x_k{k:02d}", r * k + 1.0 * r) for r in (1, 2) for k in range(20)]))
    assert f"k{plots.MOST_PANELS - 1:02d}" in many
    assert f"k{plots.MOST_PANELS:02d}" not in many


def test_a_probe_says_better_or_worse_than_before_training(stream: Any, cell: Any) -> None:
    told = [(0, "general/x", 0.5), (0, "safety", 0.5), (0, "same", 0.4), (0, "early", 0.4)]
    told += [(2, "general/x", 0.45), (2, "safety", 0.6), (2, "same", 0.4)]
    rows = [*stream(*TWO), *(cell(r - 1, name, value, "probe", "accuracy") for r, name, value in told)]
    assert kept.probe_lines(Readings(rows)) == [
        "General: 5.0 points worse than the untrained adapter (50.0%, margin not known), after round 2.",
        "Safety: 10.0 points better than the untrained adapter (50.0%, margin not known), after round 2.",
        "Same: the same as the untrained adapter (40.0%, margin not known), after round 2.",
    ]
    deltas = {group: curve[-1] for group, curve in probe_deltas(rows, "accuracy").items()}  # by another road
    assert deltas["general"] == (2, pytest.approx(-0.05))
    assert deltas["safety"] == (2, pytest.approx(0.1))
    assert kept.probe_lines(Readings(stream(*TWO))) == []


def test_what_averaging_cost_is_said_for_each_stage_that_was_measured(stream: Any) -> None:
    def site(number: int, metric: str, value: float, name: str = "a") -> dict[str, Any]:
        row = {"round": number, "stage": number - 1, "scope": "site", "site": name, "n": 9}
        return {**row, "task": f"stage-{number}", "metric": metric, "value": value}

    rows = [*stream(*TWO)]
    first, second = Readings(rows).stages
    rows += [site(first.last, "local_accuracy", 0.9), site(first.last, "accuracy", 0.8)]
    rows += [site(first.last, "local_accuracy", 0.7, "b"), site(first.last, "accuracy", 0.7, "b")]
    rows += [site(second.last, "accuracy", 0.8)]
    assert kept.averaging_lines(Readings(rows)) == [
        f"{first.name}: after round {first.last} the common model was within chance of the sites' own "
        "(80.0%, change -5.0 points, margin 32.1)."
    ]
    assert spatial_forgetting(rows, "accuracy")[first.last] == pytest.approx(0.05)  # by another road
    assert kept.averaging_lines(Readings(stream(*TWO))) == []


def test_forward_transfer_stands_among_the_numbers_where_it_was_measured(stream: Any) -> None:
    rows = stream(*TWO)
    assert forward(Readings(rows)) == pytest.approx(0.3 - 0.2)
    assert ("Change before its own stage (FWT)", "+10.0 points") in summary_table(rows, {})
    assert "Change before its own stage (FWT)" not in dict(summary_table([r for r in rows if r["round"]], {}))
    loss = stream([4.0, 4.0], [2.0, 3.5], [2.5, 3.0], metric="loss")
    assert forward(Readings(loss)) == pytest.approx(0.5)


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_shows_the_section_with_colours_that_print(
    cell: Any, tmp_path: Path, make_rows: Maker, config_toml: str
) -> None:
    run = RunDir.create(tmp_path / "demo-1", config_toml)
    rows = [row | {"n": row["n"] and 1500} for row in make_rows()]
    told = ("gate", "share of the round's step that was taken")
    rows += [guard(r, "gate_accepted", a, *told) | {"stage": (r - 1) // 3} for r, a in ((1, 1.0), (5, 0.5), (9, 0.25))]
    rows += [row | {"scope": "trained", "value": row["value"] - 0.024} for row in rows if row["metric"] == "r_matrix"]
    rows += [cell(r - 1, "general", 0.5 - r / 100, "probe", "accuracy") for r in (0, 9)]
    run.append_rows(rows)
    text = write_report(run).read_text(encoding="utf-8")
    part = text[text.index('<section id="kept"') : text.index('<section id="sites"')]
    assert len(re.findall(r'style="background:#[0-9a-f]{6}"', part)) == 6
    assert "▼ 7.8" in part
    assert "What the guards serve is, on earlier stages, 2.4 points better than what was trained" in part
    assert "General: 9.0 points worse than the untrained adapter (50.0%, margin not known)" in part
    assert "share of the round&#39;s step that was taken" in part
    assert part.count("<svg") == 2
    assert "print-color-adjust: exact" in text


def test_a_run_of_one_stage_names_no_earlier_stage(tmp_path: Path, make_rows: Maker, config_toml: str) -> None:
    run = RunDir.create(tmp_path / "one-1", config_toml)
    run.append_rows(make_rows(tasks=("all",), rounds=3))
    text = write_report(run).read_text(encoding="utf-8")
    assert "Stage 1, learned: 85.0%" in text
    assert "earlier stage" not in text[: text.index("<h2>Settings")]
    assert "What the guards did" not in text
