"""What is said of each stage: nothing is learned, lost or forgotten that chance can make."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.errors import RunError
from llmchain_fl.report.readings import Readings
from llmchain_fl.report.stages import came_to, forgotten, stages_told
from llmchain_fl.report.verdict import verdict

Rows = list[dict[str, Any]]
TWO = ([0.1, 0.2], [0.9, 0.3], [0.8, 0.7])
UNTRAINED = "the untrained adapter"


def lines(rows: Rows, stage: int) -> list[str]:
    return stages_told(rows)[stage].lines


def heads(rows: Rows) -> list[str]:
    return [told.head for told in stages_told(rows)]


def test_a_stage_says_what_it_came_to_from_both_references_with_margins(stream: Any) -> None:
    first, second = heads(stream(*TWO, half_width=0.02))
    assert (
        first
        == f"Stage 1 (a), learned: 90.0% ± 2.0 at its end; 80.0 points better than {UNTRAINED} (10.0%, margin 2.8)."
    )
    assert second == (
        f"Stage 2 (b), learned: 70.0% ± 2.0 at its end; 50.0 points better than {UNTRAINED} (20.0%, margin 2.8); "
        "40.0 points better than the end of stage 1 (a) (30.0%, margin 2.8)."
    )
    assert lines(stream(*TWO, half_width=0.02), 0) == [
        "Now: 80.0% ± 2.0; 10.0 points worse than its own end (90.0%, margin 2.8); "
        f"70.0 points better than {UNTRAINED} (10.0%, margin 2.8)."
    ]


def test_a_stage_that_ends_where_it_began_before_training_has_learned_nothing(stream: Any) -> None:
    """16.3 points were once "learned" by a stage that only won back what the stage before it had cost."""
    rows = stream([0.6, 0.6], [0.8, 0.437], [0.8, 0.6], half_width=0.02)
    assert heads(rows)[1].startswith("Stage 2 (b), back where it was untrained, not above it: 60.0%")
    assert "learned" not in heads(rows)[1]


@pytest.mark.parametrize(
    ("start", "before", "end", "word"),
    [
        (0.1, 0.1, 0.9, "learned"),
        (0.1, 0.9, 0.9, "above untrained, with no clear change by this stage"),
        (0.1, 0.9, 0.5, "above untrained, below where this stage began"),
        (0.5, 0.1, 0.5, "back where it was untrained, not above it"),
        (0.5, 0.5, 0.5, "no change beyond chance"),
        (0.5, 0.9, 0.5, "below where this stage began"),
        (0.9, 0.1, 0.5, "below untrained, above where this stage began"),
        (0.9, 0.5, 0.5, "below untrained"),
        (0.9, 0.9, 0.5, "below untrained"),
        (math.nan, 0.1, 0.5, "no verdict without a margin"),
    ],
)
def test_the_word_for_a_stage_follows_from_both_references(
    start: float, before: float, end: float, word: str, stream: Any
) -> None:
    assert heads(stream([0.5, start], [0.5, before], [0.5, end], half_width=0.02))[1].startswith(
        f"Stage 2 (b), {word}: "
    )


def test_changes_that_the_run_has_counted_record_by_record_bring_their_margins(stream: Any, cell: Any) -> None:
    rows = stream([0.5, 0.5], [0.5, 0.52], [0.5, 0.54], n=100)
    assert "learned" not in heads(rows)[1]
    for reference, value in (("untrained", 0.04), ("previous", 0.02)):
        rows.append(cell(1, "b", value, metric=f"change_{reference}", half_width=0.01, better="higher", unit="share"))
    assert heads(rows)[1].startswith("Stage 2 (b), learned: 54.0%")
    assert "4.0 points better than the untrained adapter (50.0%, margin 1.0)" in heads(rows)[1]
    rows.append(cell(1, "a", 0.0, metric="change_taught", half_width=0.005, better="higher", unit="share"))
    assert "within chance of its own end (50.0%, change 0.0 points, margin 0.5)" in lines(rows, 0)[0]


def test_without_a_margin_nothing_is_claimed(stream: Any) -> None:
    said = " ".join([*heads(stream(*TWO)), *lines(stream(*TWO), 1), *forgotten(Readings(stream(*TWO)))])
    assert "no verdict without a margin" in said
    assert not re.search("learned|cost|Forgotten", said)


def test_each_stage_stands_beside_its_own_epsilon_with_its_terms(stream: Any, cell: Any) -> None:
    terms = {"delta": 1e-5, "unit": "person", "accountant": "pld"}
    rows = stream(*TWO) + [cell(i, "all", e, "site", "epsilon", site="s", **terms) for i, e in ((0, 4.2), (1, 7.991))]
    guarantee = "(delta 1e-5, per person, PLD accountant, noise added at each site)"
    assert lines(rows, 0)[-1] == f"Epsilon by its end: 4.20 {guarantee}."
    assert lines(rows, 1)[-1] == f"Epsilon by its end: 8.00 {guarantee}."
    with pytest.raises(RunError, match="delta"):
        stages_told([{k: v for k, v in row.items() if k != "delta"} for row in rows])


def test_what_guards_serve_is_held_against_what_was_trained(stream: Any, cell: Any) -> None:
    rows = [*stream(*TWO, half_width=0.02), cell(1, "a", 0.7, "trained"), cell(1, "b", 0.75, "trained")]
    assert lines(rows, 1)[-1] == (
        "What the guards serve is, on earlier stages, 10.0 points better than what was trained (70.0%, margin 2.8)."
    )
    rows[-2]["value"] = 0.8
    assert "guards" not in " ".join(lines(rows, 1))


def test_the_cost_is_that_of_this_stage_alone_and_not_of_all_since_its_own(stream: Any) -> None:
    rows = stream([0.1, 0.1, 0.1], [0.9, 0.1, 0.1], [0.6, 0.8, 0.1], [0.5, 0.8, 0.7], half_width=0.02)
    assert lines(rows, 2)[:2] == [
        "It cost stage 1 (a): 10.0 points worse than the end of stage 2 (b) (60.0%, margin 2.8).",
        "Beside it, stage 2 (b): within chance of the end of stage 2 (b) (80.0%, change 0.0 points, margin 2.8).",
    ]


def test_what_a_stage_gives_to_an_earlier_one_is_told(stream: Any) -> None:
    rows = stream([0.1, 0.1], [0.5, 0.1], [0.7, 0.8], half_width=0.02)
    assert lines(rows, 1)[0].startswith("It gave to stage 1 (a): 20.0 points better than the end of stage 1 (a)")


def test_of_many_earlier_stages_the_mean_and_the_worst_are_told(stream: Any) -> None:
    before = [0.9, 0.9, 0.9, 0.9, 0.1]
    rows = stream([0.1] * 5, *[before] * 4, [0.8, 0.9, 0.7, 0.9, 0.9], half_width=0.02)
    told = lines(rows, 4)
    assert told[0].startswith("It cost 4 earlier stages on average: 7.5 points worse than the end of stage 4 (d)")
    assert told[1].startswith("It cost stage 3 (c) most of all: 20.0 points worse than the end of stage 4 (d)")


def test_a_score_that_is_better_when_lower_is_told_the_other_way_round(stream: Any) -> None:
    rows = stream([4.0, 4.0], [2.0, 4.0], [2.5, 3.0], metric="loss", half_width=0.1)
    assert "learned: 2.000 ± 0.100 at its end; 2.000 better than" in heads(rows)[0]
    assert lines(rows, 1)[0] == "It cost stage 1 (a): 0.500 worse than the end of stage 1 (a) (2.000, margin 0.141)."
    assert forgotten(Readings(rows))[0].startswith("Forgotten: stage 1 (a) is 0.500 worse than its best so far")


def test_forgotten_is_what_is_clearly_below_its_best(stream: Any) -> None:
    (said,) = forgotten(
        Readings(stream([0.1] * 3, [0.9, 0.5, 0.1], [0.8, 0.7, 0.1], [0.85, 0.2, 0.9], half_width=0.02))
    )
    assert said == (
        "Forgotten: most of all, stage 2 (b) is 50.0 points worse than its best so far (70.0%, margin 2.8), "
        f"and 10.0 points better than {UNTRAINED} (10.0%, margin 2.8)."
    )
    (said,) = forgotten(Readings(stream([0.1, 0.2], [0.9, 0.3], [0.84, 0.7], n=50)))
    assert said.startswith(
        "No earlier stage is clearly below its best: stage 1 (a) is within chance of its best so far"
    )
    assert forgotten(Readings(stream([0.1], [0.9], n=50))) == []
    assert forgotten(Readings(stream([0.1] * 2, [math.nan] * 2, [0.8, 0.7]))) == ["Earlier stages: not measured again."]


def test_what_was_not_measured_is_not_told(stream: Any) -> None:
    rows = stream([0.1, 0.2], [math.nan, 0.3], [0.8, 0.7], half_width=0.02)
    assert heads(rows)[0] == "Stage 1 (a): not measured."
    assert not any("stage 1" in line and "cost" in line for line in lines(rows, 1))
    assert "nan" not in " ".join([*heads(rows), *lines(rows, 1)])
    assert stages_told([]) == []


# -- laws over made-up runs -------------------------------------------------------------------------------------------

REFERENCES = rf"(?:{UNTRAINED}|the end of stage \d+ \(\w\)|its own end|its best so far|this model)"
CLAIM = r"(?:better|worse) than|within chance of|the same as"


@st.composite
def runs(draw: st.DrawFn) -> tuple[int, list[list[float]], bool]:
    """Records of a task, its scores before training and after each stage, and whether lower is better."""
    size, n = draw(st.integers(1, 4)), draw(st.integers(5, 400))
    right = st.lists(st.integers(0, n), min_size=size, max_size=size)
    lines = [[k / n for k in draw(right)] for _ in range(size + 1)]
    return n, lines, draw(st.booleans())


def margin(a: float, b: float, n: int) -> float:
    """By another road: the shares q that p is within 1.96 standard errors of: (p - q)^2 = z^2 q (1 - q) / n."""
    z = 1.959964**2 / n

    def half(p: float) -> float:
        return float(max(abs(np.roots([1 + z, -(2 * p + z), p * p]) - p)))

    return math.hypot(half(a), half(b))


@given(runs())
def test_nothing_is_learned_or_forgotten_within_the_margin(
    stream: Any, run: tuple[int, list[list[float]], bool]
) -> None:
    n, matrix, lower = run
    rows = stream(*matrix, n=n, better="lower" if lower else "higher", unit="share")
    sign = -1 if lower else 1

    def clear(old: float, new: float) -> int:
        gain, chance = sign * (new - old), margin(old, new, n)
        return 0 if abs(gain) <= chance + 1e-7 else int(math.copysign(1, gain))

    for j, told in enumerate(stages_told(rows)):
        start, before, end = matrix[0][j], matrix[j][j], matrix[j + 1][j]
        if "learned" in told.head:
            assert clear(start, end) == clear(before, end) == 1
        if end == start:
            assert "learned" not in told.head
        for i in range(j):
            if any(line.startswith("It cost") and f"stage {i + 1} " in line.split(":")[0] for line in told.lines):
                assert clear(matrix[j][i], matrix[j + 1][i]) == -1
    said = " ".join(verdict(rows, {}))
    drops = [
        clear((min if lower else max)(row[i] for row in matrix[1:-1]), matrix[-1][i]) for i in range(len(matrix) - 2)
    ]
    if "Forgotten" in said:
        assert -1 in drops


@given(runs())
def test_every_change_names_its_reference_and_carries_its_margin(
    stream: Any, run: tuple[int, list[list[float]], bool]
) -> None:
    n, matrix, lower = run
    rows = stream(*matrix, n=n, better="lower" if lower else "higher", unit="share")
    said = [*verdict(rows, {}), *(line for told in stages_told(rows) for line in told.lines)]
    for sentence in said:
        whole = re.findall(rf"(?:{CLAIM}) {REFERENCES} \([^)]*margin[^)]*\)", sentence)
        short = "Not shown: it is within chance of" in sentence or "It is clearly better than" in sentence
        assert len(whole) == len(re.findall(CLAIM, sentence)) - short, sentence


@given(runs())
def test_which_way_is_better_is_read_from_the_rows_and_from_no_name(
    stream: Any, run: tuple[int, list[list[float]], bool]
) -> None:
    n, matrix, _ = run
    up = stream(*matrix, n=n, metric="zeal", better="higher", unit="share")
    down = stream(*[[1 - p for p in row] for row in matrix], n=n, metric="zeal", better="lower", unit="share")
    for a, b in zip(heads(up), heads(down), strict=True):
        assert a.split(":")[0] == b.split(":")[0]
    run_up = Readings(up)
    assert [came_to(run_up, stage) for stage in run_up.stages] == heads(up)
