from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.report import wording
from llmchain_fl.report.readings import Readings
from llmchain_fl.report.spending import Spending
from llmchain_fl.report.tables import average, backward, compare_table, drops, forgotten, learned, summary_table
from llmchain_fl.report.verdict import stage_verdicts, verdict

Rows = list[dict[str, Any]]
Maker = Callable[..., Rows]


def scored(round: int, stage: int, task: str, value: float, metric: str = "accuracy", **more: Any) -> dict[str, Any]:
    base = {"round": round, "stage": stage, "scope": "global", "site": None, "task": task, "metric": metric}
    return base | {"value": value, "n": None} | more


def two_stages(metric: str, before: float, learned: float, kept: float, n: int | None = None) -> Rows:
    """Task a goes before -> learned -> kept; task b follows it at the same scores."""
    rows = [scored(0, -1, task, before, metric, n=n) for task in "ab"]
    rows += [scored(1, 0, "a", learned, metric, n=n), scored(1, 0, "b", before, metric, n=n)]
    rows += [scored(2, 1, "a", kept, metric, n=n), scored(2, 1, "b", learned, metric, n=n)]
    cells = [(1, 0, "a", learned), (1, 0, "b", before), (2, 1, "a", kept), (2, 1, "b", learned)]
    return rows + [scored(r, s, t, v, "r_matrix") for r, s, t, v in cells]


def sentence(sentences: list[str], start: str) -> str:
    (found,) = [each for each in sentences if each.startswith(start)]
    return found


def test_each_stage_says_what_was_learned_from_where_to_where() -> None:
    said = verdict(two_stages("accuracy", 0.1, 0.9, 0.8), {})
    assert sentence(said, "Learned, stage 1 (a)") == "Learned, stage 1 (a): from 10.0% to 90.0% (80.0 points better)."
    assert sentence(said, "Learned, stage 2 (b)") == "Learned, stage 2 (b): from 10.0% to 90.0% (80.0 points better)."
    assert said[0].startswith("After 2 rounds in 2 stages, the model answers 85.0% of the held-out records correctly")
    assert "before training it was 10.0%" in said[0]


def test_forgetting_names_the_stage_that_lost_most() -> None:
    said = sentence(verdict(two_stages("accuracy", 0.1, 0.9, 0.8), {}), "Forgotten")
    assert "earlier stages lost 10.0 points on average" in said
    assert "stage 1 (a), from 90.0% at best to 80.0%" in said


def test_a_loss_that_rose_is_forgetting_and_a_loss_that_fell_is_learning() -> None:
    rows = two_stages("loss", 4.0, 2.0, 2.5)
    said = verdict(rows, {})
    assert "lower is better" in said[0]
    assert "loss from 4.000 to 2.000 (2.000 better)" in sentence(said, "Learned, stage 1")
    assert "the loss of earlier stages rose by 0.500 on average" in sentence(said, "Forgotten")
    assert stage_verdicts(rows)[0] == "Stage 1 (a): loss from 4.000 to 2.000 when learned; now 2.500 (0.500 worse)."
    assert (learned(Readings(rows)), average(Readings(rows))) == (2.0, 2.25)
    assert (forgotten(Readings(rows)), backward(Readings(rows))) == (0.5, -0.5)


def test_a_score_that_stayed_or_rose_is_not_called_forgotten() -> None:
    for kept in (0.9, 0.95):
        assert "nothing; every earlier stage" in sentence(verdict(two_stages("accuracy", 0.1, 0.9, kept), {}), "Forg")


def test_accuracy_counts_before_loss_where_both_were_measured() -> None:
    rows = [*two_stages("accuracy", 0.1, 0.9, 0.8), scored(2, 1, "a", 1.7, "loss")]
    assert "85.0%" in verdict(rows, {})[0]


@pytest.mark.parametrize(("n", "kept", "doubted"), [(50, 0.84, True), (5000, 0.84, False), (50, 0.4, False)])
def test_a_drop_that_chance_can_make_is_called_so(n: int, kept: float, doubted: bool) -> None:
    said = sentence(verdict(two_stages("accuracy", 0.1, 0.9, kept, n=n), {}), "Forgotten")
    assert (f"within the range of chance for {n:,} records" in said) == doubted


def test_the_range_of_chance_is_that_of_two_draws() -> None:
    """By another road: two scores of the same model, drawn anew, differ by more than the margin in about 1 of 20."""
    rng, n, p = np.random.default_rng(3), 150, 0.8
    draws = rng.binomial(n, p, (4000, 2)) / n
    said = [stage_verdicts(two_stages("accuracy", 0.1, float(a), float(b), n=n))[0] for a, b in draws[:1000] if a != b]
    clear = sum("chance" not in text.split("now")[1] for text in said) / 1000
    assert 0.02 < clear < 0.08


def test_one_stage_cannot_have_forgotten_anything(make_rows: Maker) -> None:
    said = verdict(make_rows(tasks=("all",), rounds=1), {})
    assert "nothing earlier could be forgotten" in sentence(said, "Forgotten")
    assert sentence(said, "Learned") == "Learned: from 62.0% to 75.0% (13.0 points better)."


def test_a_run_that_stopped_says_which_stage_is_unfinished(make_rows: Maker) -> None:
    rows = make_rows(rounds=5)
    assert "stage 2 (travel), not finished" in " ".join(verdict(rows, {}))
    assert "not finished" in stage_verdicts(rows)[1]
    assert "not finished" not in " ".join(verdict(make_rows(), {}))


def of_run(round: int, metric: str, value: float, **more: Any) -> dict[str, Any]:
    base = {"round": round, "stage": -1, "scope": "run", "site": None, "task": "all", "n": None}
    return base | {"metric": metric, "value": value} | more


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("at", [5, 6], ids=["after its last round", "in a round that broke off"])
def test_a_run_that_ended_before_its_plan_did_says_so_first(
    at: int, private: bool, make_rows: Maker, make_privacy: Callable[..., Any]
) -> None:
    rows = make_rows(rounds=5, private=private)
    said = verdict([*rows, of_run(at, "stopped", 5.0, planned=9, reason="every site has used up its budget")], {})
    assert said[0] == "STOPPED after 5 of 9 rounds: every site has used up its budget."
    assert said[1:] == verdict(rows, {})


def test_rounds_in_which_nobody_trained_are_named_and_are_not_counted(make_rows: Maker) -> None:
    rows = make_rows()
    skipped = [of_run(number, "skipped", 1.0, stage=0, reason="nobody can pay") for number in (2, 3)]
    said = verdict([*rows, *skipped, of_run(5, "skipped", 1.0, stage=1, reason="nobody is there")], {})
    assert said[0].startswith("After 6 rounds")
    assert "Rounds without training: nobody can pay in round 2, 3; nobody is there in round 5." in said
    numbers = dict(summary_table([*rows, *skipped], {}))
    assert numbers["Rounds"] == "7 in 3 stages"
    assert "Ended" not in numbers


def test_the_key_numbers_begin_with_how_a_run_ended_early(make_rows: Maker) -> None:
    rows = [*make_rows(rounds=5), of_run(6, "stopped", 5.0, planned=9, reason="x")]
    assert summary_table(rows, {})[0] == ("Ended", "before its plan, 5 of 9 rounds")
    assert dict(summary_table(rows, {}))["Rounds"] == "5 in 2 stages"


def test_a_run_without_scores_says_so() -> None:
    for rows in ([], [scored(1, 0, "a", 3.0, "seconds", scope="run")]):
        assert verdict(rows, {})[0].startswith("Nothing has been scored yet")
        assert stage_verdicts(rows) == [] or "not measured" in stage_verdicts(rows)[0]


def test_scores_that_are_nan_are_not_measured_rather_than_a_number() -> None:
    said = " ".join(verdict(two_stages("accuracy", math.nan, math.nan, math.nan), {}))
    assert "nan" not in said
    assert "not measured" in said


def test_without_privacy_the_updates_are_said_to_be_unprotected(make_rows: Maker) -> None:
    for privacy in ({}, {"private": False, "sites": {}}):
        said = sentence(verdict(make_rows(private=False), privacy), "Spent")
        assert said == "Spent: no differential privacy: updates are not protected."


def test_an_epsilon_stands_with_its_site_delta_unit_and_accountant(
    make_rows: Maker, make_privacy: Callable[[Rows], dict[str, Any]]
) -> None:
    rows = make_rows()
    said = sentence(verdict(rows, make_privacy(rows)), "Spent")
    highest = max(row["value"] for row in rows if row["metric"] == "epsilon")
    assert f"epsilon {wording.epsilon(highest)} at most, at site-05" in said
    assert "delta 1e-5, unit record, accountant PLD" in said
    assert "within the target of 8" in said


def test_a_site_over_its_target_is_named(make_rows: Maker, make_privacy: Callable[[Rows], dict[str, Any]]) -> None:
    rows = make_rows()
    said = sentence(verdict(rows, make_privacy(rows) | {"target_epsilon": 5.5}), "Spent")
    assert "OVER the target of 5.5 at site-05." in said


def test_a_calibration_that_meets_its_target_is_not_over_it() -> None:
    privacy = {"private": True, "delta": 1e-5, "unit": "record", "accountant": "pld", "target_epsilon": 8.0}
    spent = Spending.of(Readings([]), privacy | {"sites": {"a": {"epsilon": 8.000000004}}})
    assert not spent.over("a")
    assert wording.epsilon(8.000000004) == "8.00"


def test_the_larger_of_two_recorded_epsilons_counts_and_no_bound_is_above_all() -> None:
    row = scored(1, 0, "all", 3.0, "epsilon", scope="site", site="a", delta=1e-6, unit="record", accountant="rdp")
    privacy = {"private": True, "sites": {"a": {"epsilon": 2.0}, "b": {"epsilon": 2.5}}}
    spent = Spending.of(Readings([row]), privacy)
    assert spent.highest is not None
    assert (spent.highest[0], spent.highest[1].epsilon, spent.guarantee) == (
        "a",
        3.0,
        "delta 1e-6, unit record, accountant RDP",
    )
    unbounded = Spending.of(
        Readings([row]), {"private": True, "sites": {"b": {"epsilon": None}}, "target_epsilon": 9.0}
    )
    assert unbounded.highest is not None
    assert unbounded.highest[0] == "b"
    assert unbounded.over("b")


def test_privacy_that_nobody_has_spent_yet_is_not_called_absent() -> None:
    said = sentence(verdict(two_stages("accuracy", 0.1, 0.9, 0.8), {"private": True, "sites": {}}), "Spent")
    assert "was asked for" in said


def test_the_worst_served_site_is_named_whichever_way_the_score_counts(make_rows: Maker) -> None:
    assert "Worst served: site-05" in " ".join(verdict(make_rows(), {}))
    said = sentence(verdict(make_rows("loss"), {}), "Worst served")
    assert said.startswith("Worst served: site-05, a loss of")
    assert said.endswith("site-00, 2.120.")


def test_a_site_with_several_tasks_is_scored_by_the_mean_of_its_latest_round() -> None:
    rows = [scored(1, 0, "a", 0.1, scope="site", site="s")]
    rows += [scored(2, 1, "a", 0.4, scope="site", site="s", n=30), scored(2, 1, "b", 0.8, scope="site", site="s", n=10)]
    assert Readings(rows).site_scores == {"s": pytest.approx(0.5)}


def test_what_was_sent_and_refused_is_counted(make_rows: Maker) -> None:
    said = verdict(make_rows(), {})
    assert sentence(said, "Sent") == "Sent: 7.99 MB from the sites and 16.0 MB to them, over the whole run."
    assert sentence(said, "Refused") == "Refused: 1 update, from site-04."


def test_a_test_set_kept_for_the_end_is_reported_beside_the_rest(make_rows: Maker) -> None:
    rows = make_rows()
    rows += [scored(9, 2, task, 0.5, "test_accuracy", n=9) for task in ("cards", "travel", "utility")]
    assert sentence(verdict(rows, {}), "Final check").startswith("Final check: right on 50.0% of the test records")
    assert ("Average accuracy, records kept for the end", "50.0%") in summary_table(rows, {})


def test_a_row_written_again_after_a_resume_replaces_the_first() -> None:
    rows = two_stages("accuracy", 0.1, 0.9, 0.8)
    again = [row | {"value": 0.7} for row in rows if row["round"] == 2 and row["task"] == "a"]
    assert "now 70.0%" in stage_verdicts(rows + again)[0]
    sent = [scored(1, 0, "a", v, "bytes_up", scope="site", site="s") for v in (500.0, 400.0)]
    assert Readings(sent).bytes_per_round("bytes_up") == [(1, 400.0)]


@given(st.integers(1, 5).flatmap(lambda t: st.lists(st.floats(0, 1), min_size=t * t, max_size=t * t)))
def test_average_is_learned_plus_backward_transfer_and_drops_average_to_forgetting(values: list[float]) -> None:
    """Lopez-Paz 2017: ACC = LA + (T-1)/T BWT; Chaudhry 2018: F is the mean of the single drops."""
    size = math.isqrt(len(values))
    matrix = np.array(values).reshape(size, size)
    rows = [scored(i + 1, i, f"t{j}", matrix[i, j]) for i in range(size) for j in range(size)]
    rows += [row | {"metric": "r_matrix"} for row in rows]
    run = Readings(rows)
    assert average(run) == pytest.approx(learned(run) + (size - 1) / size * backward(run), abs=1e-9)
    if size > 1:
        best = matrix[:-1].max(axis=0)
        assert [drop for _, drop in drops(run)] == pytest.approx([best[j] - matrix[-1, j] for j in range(size - 1)])
        assert forgotten(run) == pytest.approx(np.mean([drop for _, drop in drops(run)]))


def test_a_run_without_r_rows_is_read_off_its_curves(make_rows: Maker) -> None:
    rows = make_rows()
    without = [row for row in rows if row["metric"] != "r_matrix"]
    for number in (average, learned, backward):
        assert number(Readings(without)) == pytest.approx(number(Readings(rows)))
    assert not Readings(without).unfinished


def test_the_summary_is_text_and_says_epsilon_only_with_its_terms(
    make_rows: Maker, make_privacy: Callable[[Rows], dict[str, Any]]
) -> None:
    rows = make_rows()
    table = dict(summary_table(rows, make_privacy(rows)))
    assert table["Rounds"] == "9 in 3 stages"
    assert table["Forgotten (F)"] == "5.8 points"
    assert table["Epsilon, highest of the sites"].endswith("(delta 1e-5, unit record, accountant PLD)")
    assert dict(summary_table(make_rows(private=False), {}))["Epsilon, highest of the sites"].startswith("none")
    assert "Forgotten (F)" not in dict(summary_table(make_rows(tasks=("all",), rounds=1), {}))


def test_two_runs_are_compared_line_by_line_with_their_difference(make_rows: Maker) -> None:
    without, guarded = two_stages("accuracy", 0.1, 0.9, 0.5), two_stages("accuracy", 0.1, 0.85, 0.8)
    table = compare_table(without, guarded, ("without guard", "with guard"))
    assert table[0] == ("", "without guard", "with guard", "difference")
    assert table[1:5] == [
        ("average accuracy", "70.0%", "82.5%", "+12.5 points"),
        ("learned (LA)", "90.0%", "85.0%", "-5.0 points"),
        ("forgotten (F)", "40.0 points", "5.0 points", "-35.0 points"),
        ("backward transfer (BWT)", "-40.0 points", "-5.0 points", "+35.0 points"),
    ]
    private = compare_table(make_rows(private=False), make_rows(), ("a", "b"))
    assert private[5][1].startswith("none")
    assert "delta 1e-5, unit record, accountant PLD" in private[5][2]
    assert private[6] == ("sent, MB", "23.97", "23.97", "+0.00")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (wording.score(0.8444, "accuracy"), "84.4%"),
        (wording.score(2.3068, "loss"), "2.307"),
        (wording.score(math.nan, "accuracy"), "not measured"),
        (wording.change(-0.078, "accuracy"), "-7.8 points"),
        (wording.change(-0.00001, "accuracy"), "0.0 points"),
        (wording.change(0.5, "loss"), "+0.500"),
        (wording.epsilon(3.2011), "3.21"),
        (wording.epsilon(3.2), "3.20"),
        (wording.epsilon(math.inf), "no finite bound"),
        (wording.power(1e-5), "1e-5"),
        (wording.power(2.5e-6), "2.5e-6"),
        (wording.power(0.001), "0.001"),
        (wording.size(3_540_000), "3.54 MB"),
        (wording.size(999_900_000), "1,000 MB"),
        (wording.size(12), "12 bytes"),
        (wording.duration(3725), "1 h 2 min"),
        (wording.duration(59.4), "59.4 s"),
        (wording.duration(125), "2 min 5 s"),
        (wording.count(1, "round"), "1 round"),
        (wording.short("x" * 30), "x" * 23 + "…"),
    ],
)
def test_numbers_read_as_the_table_says(text: str, expected: str) -> None:
    assert text == expected


@given(st.floats(0, 1e6))
def test_a_printed_epsilon_is_never_below_the_computed_one(value: float) -> None:
    assert float(wording.epsilon(value)) >= value - 1e-6 - 1e-9 * value
