"""What a score is read against, from answers given by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.evaluation.answered import Answered
from server.references import References

SPEC = TaskSpec("classification", labels=(("a", "x"), ("b", "y"), ("c", "z")), candidate_labels=(("two", (0, 1)),))
TARGETS = np.array([0, 0, 0, 1, 2, 2])


class Given:
    """In place of a ``Scorer``: arrays name the answers."""

    main = Metric("accuracy", "higher", "share", 1.0)
    each_round = "dev"

    def __init__(self, *, apart: bool = False, main: Metric | None = None) -> None:
        self.only_at_the_end = apart
        self.main = main or self.main

    def answered(self, answers: Any, which: str) -> dict[str, Answered]:
        right = (np.asarray(answers) == TARGETS).astype(float)
        if self.main.better == "lower":
            right = 1.0 - right
        one = Answered(6, right, np.asarray(answers), TARGETS)
        return {"one": one, "two": one}


def named(rows: list[dict[str, Any]], task: str = "one") -> dict[str, Any]:
    return {row["metric"]: row for row in rows if row["task"] == task and "label" not in row}


UNTRAINED, FIRST, SECOND = [0] * 6, [0, 0, 0, 1, 2, 0], [0, 0, 1, 1, 2, 2]


def test_before_training_stand_majority_and_chance() -> None:
    rows = References(Given(), SPEC).start(UNTRAINED)  # type: ignore[arg-type]
    assert {row["scope"] for row in rows} == {"baseline"}
    assert named(rows)["majority"]["value"] == pytest.approx(3 / 6)
    assert named(rows)["chance"]["value"] == pytest.approx(1 / 3)
    assert named(rows, "two")["chance"]["value"] == pytest.approx(1 / 2)


def test_a_change_names_its_reference() -> None:
    made = References(Given(), SPEC)  # type: ignore[arg-type]
    made.start(UNTRAINED)
    first = named(made.stage(1, 0, "one", FIRST))  # type: ignore[arg-type]
    second = made.stage(2, 1, "two", SECOND)  # type: ignore[arg-type]
    assert first.keys() == {"macro_f1", "change_untrained"}
    assert first["change_untrained"]["value"] == pytest.approx(2 / 6)
    assert named(second)["change_untrained"]["value"] == pytest.approx(2 / 6)
    assert named(second)["change_taught"]["value"] == pytest.approx(0.0)
    assert named(second)["change_previous"]["half_width"] > named(second)["change_previous"]["value"]
    assert "change_taught" not in named(second, "two")
    recalls = {row["label"]: (row["value"], row["n"]) for row in second if row["task"] == "one" and "label" in row}
    assert recalls == {"a": (pytest.approx(2 / 3), 3), "b": (1.0, 1), "c": (1.0, 2)}


def test_a_change_is_positive_where_it_is_better_also_for_a_score_that_falls() -> None:
    made = References(Given(main=Metric("error", "lower", "share", 1.0)), SPEC)  # type: ignore[arg-type]
    made.start(UNTRAINED)
    row = named(made.stage(1, 0, "one", FIRST))["change_untrained"]  # type: ignore[arg-type]
    assert row["value"] == pytest.approx(2 / 6)
    assert (row["better"], row["of"]) == ("higher", "error")


def test_records_kept_for_the_end_have_references_of_their_own() -> None:
    made = References(Given(apart=True), SPEC)  # type: ignore[arg-type]
    start = named(made.start(UNTRAINED))
    assert start["test_untrained"]["value"] == pytest.approx(3 / 6)
    assert named(made.final(2, 1, SECOND))["test_change_untrained"]["value"] == pytest.approx(2 / 6)  # type: ignore[arg-type]


def test_references_survive_the_state() -> None:
    made, again = References(Given(), SPEC), References(Given(), SPEC)  # type: ignore[arg-type]
    made.start(UNTRAINED)
    made.stage(1, 0, "one", FIRST)  # type: ignore[arg-type]
    again.load_state(made.state())
    assert again.stage(2, 1, "two", SECOND) == made.stage(2, 1, "two", SECOND)  # type: ignore[arg-type]
