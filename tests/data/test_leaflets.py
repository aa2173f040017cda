"""Made-up leaflets: each answer stands where it is said to, the splits share nothing, some questions have none."""

from __future__ import annotations

import json
import re

import pytest

from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.data.generated import SPLITS, generate, leaflets

each_split = pytest.mark.parametrize("split", SPLITS)


@each_split
def test_every_answer_stands_in_its_context_behind_the_name_that_is_asked_for(split: str) -> None:
    kind = task_kind("span-qa")
    for row in generate("leaflet-questions", 3, 200, split):
        assert kind.fault_of(row, {}) == ""
        (piece,), (begin,) = json.loads(row["answers"]), json.loads(row["answer_start"])
        assert row["context"][begin : begin + len(piece)] == piece
        before = row["context"][:begin].rpartition(": information for patients.")[0]
        assert before.rpartition(" ")[2] in row["question"]


def test_the_splits_share_neither_a_medicine_nor_the_words_of_a_question() -> None:
    def parts(split: str) -> tuple[set[str], set[str]]:
        names, patterns = set(), set()
        for row in generate("leaflet-questions", 1, 600, split):
            beside = re.findall(r"(\w+): information for patients", row["context"])
            (name,) = [one for one in beside if one in re.findall(r"\w+", row["question"])]
            names.update(beside)
            patterns.add(row["question"].replace(name, "N"))
        return names, patterns

    (names, questions), (other_names, other_questions) = parts("train"), parts("test")
    assert not names & other_names
    assert not questions & other_questions


@each_split
def test_every_third_question_has_no_answer_over_the_leaflet_that_it_stands_over(split: str) -> None:
    kind, plain = task_kind("span-qa-or-none"), generate("leaflet-questions", 3, 400, split)
    rows = generate("leaflet-questions-or-none", 3, 400, split)
    assert rows[::3] == plain[::3]
    assert rows[1::3] == plain[1::3]
    assert all(kind.fault_of(row, {}) == "" for row in rows)
    assert [row["answers"] == "[]" for row in rows] == [False, False, True] * 133 + [False]
    own = [row["context"].partition(":")[0] in row["question"] for row in rows[2::3]]
    assert own == [place % 2 == 1 for place in range(133)]
    answered = {(row["question"], row["context"]) for row in generate("leaflet-questions", 9, 4000, split)}
    assert not answered & {(row["question"], row["context"]) for row in rows[2::3]}
    others = {row["context"].partition(":")[0] for row in generate("leaflet-questions", 9, 4000, split)}
    assert all(any(name in row["question"] for name in others) for row in rows), "medicines of its own split"


def test_a_person_belongs_to_one_ward() -> None:
    rows = generate("leaflet-questions", 1, 300, "train")
    assert len({(row["person"], row["ward"]) for row in rows}) == len({row["person"] for row in rows}) > 50


def test_no_leaflet_answers_an_unanswerable_question() -> None:
    """Half of them name a medicine without a leaflet; the rest ask for what their leaflet leaves out."""
    texts = {row["text"].partition(":")[0]: row["text"] for row in leaflets()}
    rows = generate("leaflet-unanswerable", 2, 120, "test")
    known = [row for row in rows if any(name in row["question"] for name in texts)]
    assert len(known) == 60
    for half in (rows[::2], rows[1::2]):
        assert sum(any(name in row["question"] for name in texts) for row in half) == 30, "dealt out in turns"
    answered = {row["question"] for row in generate("leaflet-questions", 9, 4000, "test")}
    assert not answered & {row["question"] for row in rows}
