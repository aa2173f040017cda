from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.report import wording
from llmchain_fl.report.readings import Readings
from llmchain_fl.report.references import site_scores
from llmchain_fl.report.spending import Spending
from llmchain_fl.report.stages import stages_told
from llmchain_fl.report.tables import average, backward, compare_table, drops, forgotten, learned, summary_table
from llmchain_fl.report.verdict import answers, verdict

Rows = list[dict[str, Any]]
Maker = Callable[..., Rows]
TERMS = "delta 1e-5, per record, PLD accountant, noise added at each site"


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


def test_the_run_is_summed_up_by_its_first_score() -> None:
    rows = [*two_stages("accuracy", 0.1, 0.9, 0.8), scored(2, 1, "a", 1.7, "loss")]
    assert (
        verdict(rows, {})[0]
        == "After 2 rounds in 2 stages, the accuracy on held-out records is 85.0% on average over the stages."
    )
    assert (
        "the loss on held-out records is 2.250 on average over the stages (lower is better)"
        in (verdict(two_stages("loss", 4.0, 2.0, 2.5), {})[0])
    )


def test_the_numbers_of_a_stream_keep_the_direction_of_their_score() -> None:
    run = Readings(two_stages("loss", 4.0, 2.0, 2.5))
    assert (learned(run), average(run)) == (2.0, 2.25)
    assert (forgotten(run), backward(run)) == (0.5, -0.5)


def test_a_run_that_stopped_says_which_stage_is_unfinished(make_rows: Maker) -> None:
    rows = make_rows(rounds=5)
    assert "Stage 2 (travel), not finished" in " ".join(verdict(rows, {}))
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
    assert [each for each in said[1:] if "larger budget" not in each][:6] == verdict(rows, {})[:6]
    assert answers([*rows, of_run(at, "stopped", 5.0, planned=9, reason="x")], {})[4].short.startswith(
        "Its budget ended"
    )


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
        assert answers(rows, {})[0].short == "Not known: there is no score on held-out records."


def test_scores_that_are_nan_are_not_measured_rather_than_a_number() -> None:
    said = " ".join(verdict(two_stages("accuracy", math.nan, math.nan, math.nan), {}))
    assert "nan" not in said
    assert "not measured" in said


def test_without_privacy_the_updates_are_said_to_be_unprotected(make_rows: Maker) -> None:
    for privacy in ({}, {"private": False, "sites": {}}):
        private = answers(make_rows(private=False), privacy)[3]
        assert private.short.startswith("No differential privacy: nothing limits what updates")
        assert private.good is False


def test_an_epsilon_stands_with_its_site_delta_unit_and_accountant(
    make_rows: Maker, make_privacy: Callable[[Rows], dict[str, Any]]
) -> None:
    rows = make_rows()
    private = answers(rows, make_privacy(rows))[3]
    highest = max(row["value"] for row in rows if row["metric"] == "epsilon")
    assert private.short == (
        f"Epsilon {wording.epsilon_text(highest)} ({TERMS}) at most, at site-05; every site is within the target of 8."
    )
    assert "it need not trust the server" in private.lines[1]
    whole = answers(rows, make_privacy(rows) | {"unit": "site"})[3]
    assert "noise added at the server, which is trusted" in whole.short
    assert "trust it to do so" in whole.lines[1]


def test_a_site_over_its_target_is_named(make_rows: Maker, make_privacy: Callable[[Rows], dict[str, Any]]) -> None:
    rows = make_rows()
    private = answers(rows, make_privacy(rows) | {"target_epsilon": 5.5})[3]
    assert "OVER the target of 5.5 at site-05." in private.short
    assert private.good is False
    assert answers(rows, make_privacy(rows) | {"target_epsilon": 5.5})[4].short.startswith("A site is over its target")


def test_a_calibration_that_meets_its_target_is_not_over_it() -> None:
    privacy = {"private": True, "delta": 1e-5, "unit": "record", "accountant": "pld", "target_epsilon": 8.0}
    spent = Spending.of(Readings([]), privacy | {"sites": {"a": {"epsilon": 8.000000004}}})
    assert not spent.over("a")
    assert wording.epsilon_text(8.000000004) == "8.00"


def test_the_larger_of_two_recorded_epsilons_counts_and_no_bound_is_above_all() -> None:
    row = scored(1, 0, "all", 3.0, "epsilon", scope="site", site="a", delta=1e-6, unit="record", accountant="rdp")
    privacy = {"private": True, "sites": {"a": {"epsilon": 2.0}, "b": {"epsilon": 2.5}}}
    spent = Spending.of(Readings([row]), privacy)
    assert spent.highest is not None
    assert (spent.highest[0], spent.highest[1].epsilon, spent.guarantee) == (
        "a",
        3.0,
        "delta 1e-6, per record, RDP accountant, noise added at each site",
    )
    unbounded = Spending.of(
        Readings([row]), {"private": True, "sites": {"b": {"epsilon": None}}, "target_epsilon": 9.0}
    )
    assert unbounded.highest is not None
    assert unbounded.highest[0] == "b"
    assert unbounded.over("b")


def test_privacy_that_nobody_has_spent_yet_is_not_called_absent() -> None:
    assert "was asked for" in answers(two_stages("accuracy", 0.1, 0.9, 0.8), {"private": True, "sites": {}})[3].short


def test_the_worst_served_site_is_named_whichever_way_the_score_counts(make_rows: Maker) -> None:
    said = sentence(verdict(make_rows(), {}), "On their own held-out records")
    assert "at site-05, the worst served, to" in said
    said = sentence(verdict(make_rows("loss"), {}), "On their own held-out records")
    assert "at site-05, the worst served, to 2.120 at site-00" in said


def test_a_site_with_several_tasks_is_scored_by_the_mean_of_its_latest_round() -> None:
    rows = [scored(0, -1, "a", 0.1), scored(1, 0, "a", 0.1, scope="site", site="s")]
    rows += [scored(2, 1, "a", 0.4, scope="site", site="s", n=30), scored(2, 1, "b", 0.8, scope="site", site="s", n=10)]
    assert site_scores(Readings(rows)) == {"s": pytest.approx(0.5)}


def test_what_was_sent_and_refused_is_counted(make_rows: Maker) -> None:
    said = verdict(make_rows(), {})
    assert sentence(said, "Sent") == "Sent: 7.99 MB from the sites and 16.0 MB to them, over the whole run."
    assert sentence(said, "Refused") == "Refused: 1 update, from site-04."


def test_a_test_set_kept_for_the_end_is_reported_beside_the_rest(make_rows: Maker) -> None:
    rows = make_rows()
    rows += [scored(9, 2, task, 0.5, "test_accuracy", n=9) for task in ("cards", "travel", "utility")]
    assert sentence(verdict(rows, {}), "On test records").startswith(
        "On test records that were kept apart until the end its accuracy is 50.0% ±"
    )
    assert dict(summary_table(rows, {}))["Average accuracy, records kept for the end"].startswith("50.0% ±")


def test_a_row_written_again_after_a_resume_replaces_the_first() -> None:
    rows = two_stages("accuracy", 0.1, 0.9, 0.8)
    again = [row | {"value": 0.7} for row in rows if row["round"] == 2 and row["task"] == "a"]
    assert stages_told(rows + again)[0].lines[0].startswith("Now: 70.0%")
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
        found = [-change.gain for _, change in drops(run)]
        assert found == pytest.approx([best[j] - matrix[-1, j] for j in range(size - 1)])
        assert forgotten(run) == pytest.approx(np.mean(found))


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
    assert table["Below its best since (F)"].startswith("5.8 points ± ")
    assert table["Epsilon, highest of the sites"].endswith(f"({TERMS})")
    assert dict(summary_table(make_rows(private=False), {}))["Epsilon, highest of the sites"].startswith("none")
    assert "Below its best since (F)" not in dict(summary_table(make_rows(tasks=("all",), rounds=1), {}))


def test_two_runs_are_compared_line_by_line_with_their_difference(make_rows: Maker) -> None:
    without, guarded = two_stages("accuracy", 0.1, 0.9, 0.5), two_stages("accuracy", 0.1, 0.85, 0.8)
    table = compare_table(without, guarded, ("without guard", "with guard"))
    assert table[0] == ("", "without guard", "with guard", "difference")
    assert table[1:5] == [
        ("Average score", "70.0%", "82.5%", "+12.5 points"),
        ("At the end of its own stage (LA)", "90.0%", "85.0%", "-5.0 points"),
        ("Below its best since (F)", "40.0 points", "5.0 points", "-35.0 points"),
        ("Change since its own stage (BWT)", "-40.0 points", "-5.0 points", "+35.0 points"),
    ]
    sized = compare_table(two_stages("accuracy", 0.1, 0.9, 0.5, n=1000), guarded, ("a", "b"))
    assert sized[1] == ("Average score", "70.0% ± 1.8", "82.5%", "+12.5 points")  # one margin is not known
    private = {row[0]: row for row in compare_table(make_rows(private=False), make_rows(), ("a", "b"))}
    assert private["Average score"][3] == "0.0 points ± 5.2"
    assert private["Epsilon, highest of the sites"][1].startswith("none")
    assert TERMS in private["Epsilon, highest of the sites"][2]
    assert private["Sent, MB"] == ("Sent, MB", "23.97", "23.97", "+0.00")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (wording.score(0.8444, "share"), "84.4%"),
        (wording.score(2.3068, "nats"), "2.307"),
        (wording.score(math.nan, "share"), "not measured"),
        (wording.change(-0.078, "share"), "-7.8 points"),
        (wording.change(-0.00001, "share"), "0.0 points"),
        (wording.change(0.5, "nats"), "+0.500"),
        (wording.epsilon_text(3.2011), "3.21"),
        (wording.epsilon_text(3.2), "3.20"),
        (wording.epsilon_text(math.inf), "no finite bound"),
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
    assert float(wording.epsilon_text(value)) >= value - 1e-6 - 1e-9 * value


# -- what the score is held against -----------------------------------------------------------------------------------


def held_against(**references: float) -> Rows:
    """A run of one stage from 20% to 80% of 1,000 records, with references on the same records."""
    rows = [scored(0, -1, "a", 0.2, n=1000), scored(1, 0, "a", 0.8, n=1000), scored(1, 0, "a", 0.8, "r_matrix")]
    return rows + [scored(0, -1, "a", value, name, scope="baseline", n=1000) for name, value in references.items()]


def test_a_closed_form_head_that_does_better_is_seen_at_once() -> None:
    enough, *_, following = answers(held_against(majority=0.1, chance=0.01, ridge_all=0.945), {})
    assert enough.good is False
    assert enough.short == (
        "No: a closed-form head on the frozen base reaches 94.5%, 14.5 points better than this model (margin 3.0)."
    )
    assert enough.lines[:4] == [
        "It is 60.0 points better than the untrained adapter (20.0%, margin 3.7).",
        "It is 79.0 points better than guessing a label at random (1.0%, margin 2.6).",
        "It is 70.0 points better than always giving the most frequent label (10.0%, margin 3.3).",
        "It is 14.5 points worse than a closed-form head on the frozen base (94.5%, margin 3.0).",
    ]
    assert following.short.startswith("A closed-form head on the frozen base does better")


@pytest.mark.parametrize(
    ("references", "good", "said"),
    [
        ({"majority": 0.1, "ridge_all": 0.5}, True, "It is clearly better than the untrained adapter, always giving"),
        ({"majority": 0.1, "ridge_all": 0.79}, None, "Not shown: it is within chance of a closed-form head on"),
        ({"majority": 0.81}, None, "Not shown: it is within chance of always giving the most frequent label"),
        ({"majority": 0.9}, False, "No: always giving the most frequent label reaches 90.0%"),
        ({}, True, "It is clearly better than the untrained adapter. Whether"),
    ],
)
def test_a_model_is_held_against_whatever_was_measured(references: dict[str, float], good: bool, said: str) -> None:
    enough = answers(held_against(**references), {})[0]
    assert (enough.good, enough.short[: len(said)]) == (good, said)


def test_a_reference_that_is_clearly_ahead_counts_though_another_is_further_ahead_and_unsure() -> None:
    rows = held_against()
    rows += [
        scored(0, -1, "a", value, name, scope="baseline", half_width=half)
        for name, value, half in (("ridge_all", 0.9, 0.5), ("majority", 0.85, 0.001))
    ]
    assert answers(rows, {})[0].short.startswith("No: always giving the most frequent label reaches 85.0%")


def test_records_kept_for_the_end_decide_where_there_are_some() -> None:
    apart = {"test_untrained": 0.2, "test_majority": 0.1, "test_ridge_all": 0.85}
    rows = [*held_against(ridge_all=0.5, **apart), scored(1, 0, "a", 0.6, "test_accuracy", n=1000)]
    enough = answers(rows, {})[0]
    assert enough.short.startswith("No: a closed-form head on the frozen base reaches 85.0%, 25.0 points better")
    assert enough.lines[1].startswith("It is 40.0 points better than the untrained adapter (20.0%")


def test_the_same_records_kept_for_the_end_bring_a_margin_of_their_own() -> None:
    rows = [*held_against(test_untrained=0.59), scored(1, 0, "a", 0.6, "test_accuracy", n=1000)]
    assert answers(rows, {})[0].good is None
    paired = scored(1, 0, "a", 0.01, "test_change_untrained", half_width=0.005, better="higher", unit="share")
    assert answers([*rows, paired], {})[0].lines[1] == (
        "It is 1.0 points better than the untrained adapter (59.0%, margin 0.5)."
    )


def test_a_reference_that_lacks_a_task_is_left_out() -> None:
    rows = two_stages("accuracy", 0.1, 0.9, 0.8, n=1000)
    assert "most frequent" not in " ".join(
        answers([*rows, scored(0, -1, "a", 0.5, "majority", scope="baseline", n=1000)], {})[0].lines
    )


def test_the_common_model_is_held_against_each_site_alone() -> None:
    assert answers(held_against(), {})[1].short.startswith("Not known: no site has been measured alone.")
    alone = [
        scored(0, -1, "a", value, "ridge_alone", scope="baseline", site=site, n=1000)
        for site, value in (("north", 0.5), ("south", 0.79), ("west", 0.9))
    ]
    better = answers([*held_against(), *alone], {})[1]
    assert better.short.endswith("the common model is better at 1, within chance at 1, worse at 1 of 3 sites.")
    assert better.good is False
    assert better.lines[0] == (
        "At west, where alone does best, the model is 10.0 points worse than its own records alone (90.0%, margin 3.3)."
    )
    assert answers([*held_against(), *alone[:1]], {})[1].good is True
    whole = scored(0, -1, "a", 0.6, "ridge_all", scope="baseline", n=1000, records=500, of_records=2000)
    unsure = answers([*held_against(), *alone[:1], whole], {})[1]
    assert unsure.good is None, "heads from a part of the records do not settle it"
    assert "500 of 2,000 records" in unsure.lines[1]


def test_the_label_that_is_answered_worst_is_named() -> None:
    rows = [*held_against(), scored(1, 0, "a", 0.7, "macro_f1", better="higher", unit="share")]
    rows += [
        scored(1, 0, "a", value, "recall", label=label, better="higher", unit="share", n=20)
        for label, value in (("lost", 0.05), ("found", 0.9))
    ]
    assert answers(rows, {})[0].lines[-1] == (
        "Macro-F1 is 70.0%. The label answered worst is lost: 5.0% of its 20 records."
    )


def test_who_took_part_counts_updates_that_were_summed(make_rows: Maker) -> None:
    who = answers(make_rows(), {})[2]
    assert who.short == "6 sites sent updates in 9 rounds, 8 to 9 rounds each."
    assert answers([], {})[2].short == "Nobody yet."


def test_there_is_always_something_to_do_next(make_rows: Maker) -> None:
    assert answers([], {})[4].short == "Run it: nothing has been scored yet."
    few = answers(make_rows(), {})[4]
    assert "150 is few" in few.short
    assert few.lines[-1].startswith("Try it on texts of your own")


@pytest.mark.parametrize("place", ["llmchain_fl", "server", "client", "simulations"])
def test_no_other_file_writes_an_epsilon_with_a_precision_of_its_own(place: str) -> None:
    """5.49 once stood in the terminal and 5.50 in the report."""
    formatted = re.compile(r"epsilon \{[^}]*:\.\d[fg]\}|\{[^}]*epsilon[^}]*:\.\d[fg]\}")
    root = Path(wording.__file__).parents[2] / place
    found = [f"{p.name}: {m[0]}" for p in root.rglob("*.py") for m in formatted.finditer(p.read_text(encoding="utf-8"))]
    assert found == []
