"""Two marked things: their signs stand where the marks stood, survive a cut, and relations are scored as in 2010."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.tasks.marked import fault, kept, relation_f1, signed, token_at

NAMES = ["A(e1,e2)", "A(e2,e1)", "B(e1,e2)", "B(e2,e1)", "Other"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the <e1>cat</e1> on a <e2>mat</e2>", "the $ cat $ on a # mat #"),
        ("<e2> mat </e2> $5 <e1> fat cat </e1>.", "# mat # $5 $ fat cat $."),
        ("<e1>a</e1><e2>b</e2>", "$ a $# b #"),
    ],
)
def test_signs_stand_where_the_marks_stood(text: str, expected: str) -> None:
    told = signed(text)
    assert told.text == expected
    assert (told.text[told.first[0]], told.text[told.first[1] - 1]) == ("$", "$")
    assert (told.text[told.second[0]], told.text[told.second[1] - 1]) == ("#", "#")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("the <e1>cat</e1> on a <e2>mat</e2>", ""),
        ("<e2>mat</e2> <e1>cat</e1>", ""),
        ("no mark at all", "exactly one"),
        ("<e1>cat</e1> on a mat", "exactly one"),
        ("<e1>cat</e1> <e2>mat</e2> <e1>dog</e1>", "exactly one"),
        ("<e1>cat <e2>mat</e2>", "exactly one"),
        ("<e1>cat <e2>on</e1> mat</e2>", "crossed"),
        ("<e1>cat <e2>mat</e2></e1>", "crossed"),
        ("</e1>cat<e1> <e2>mat</e2>", "crossed"),
        ("<e1> </e1> <e2>mat</e2>", "nothing in between"),
        ("<e1>cat</e1> <e2></e2>", "nothing in between"),
    ],
)
def test_what_is_no_record_says_why_and_quotes_nothing(text: str, part: str) -> None:
    found = fault({"text": text}, ())
    assert part in found
    assert bool(found) is bool(part)
    assert "cat" not in found


@given(st.integers(4, 60), st.integers(4, 30), st.data())
def test_both_opening_signs_survive_any_cut(size: int, room: int, data: st.DataObject) -> None:
    """Tokens of one character each."""
    ends = sorted(data.draw(st.lists(st.integers(0, size - 1), min_size=4, max_size=4, unique=True)))
    spans = [(ends[0], ends[1] + 1), (ends[2], ends[3] + 1)]
    places = np.arange(size)[:, None] + np.array([0, 1])
    for order in (spans, spans[::-1]):
        found = kept(places, order, room)
        assert len(found) <= room
        assert found == sorted(set(found))
        assert {ends[0], ends[2]} <= set(found)
        if size <= room:
            assert found == list(range(size))
        elif ends[3] + 1 - ends[0] <= room:
            assert set(range(ends[0], ends[3] + 1)) <= set(found)
            assert len(found) == room


def test_a_character_between_tokens_belongs_to_the_one_before() -> None:
    places = np.array([[0, 2], [3, 5]])
    assert [token_at(places, character) for character in (0, 1, 2, 3, 9)] == [0, 0, 0, 1, 1]


def test_the_wrong_direction_is_wrong_and_costs_only_its_own_relation() -> None:
    """By hand: A has 3 records, 2 right, 1 in the wrong direction; B has 1, missed; Other is taken for B."""
    targets, answers = np.array([0, 0, 1, 2, 4, 4]), np.array([0, 0, 0, 4, 2, 4])
    of_a, of_b = 2 * (2 / 3) * (2 / 3) / (4 / 3), 0.0
    assert relation_f1(targets, answers, NAMES) == pytest.approx((of_a + of_b) / 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_without_directions_it_is_the_macro_f1_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    targets, answers = np.array(pairs).T
    expected = metrics.f1_score(targets, answers, labels=[0, 1, 2], average="macro", zero_division=0)
    assert relation_f1(targets, answers, ["x", "y", "z", "Other"]) == pytest.approx(expected)
