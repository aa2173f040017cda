"""Columns whose cells are lists: one JSON text, whatever the file's format, or a fault; never a word of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.data.columns import map_record
from llmchain_fl.core.data.lists import Listed, items_of, list_text, listed_words
from llmchain_fl.core.data.rows import Line, Located, Misfit
from llmchain_fl.core.data.source import read_fitting
from llmchain_fl.core.data.turns import Turns, turns_of

ITEMS = st.lists(st.one_of(st.text(st.characters(codec="utf-8")), st.integers(-(2**63), 2**63)))


@given(ITEMS)
def test_a_list_of_texts_and_numbers_comes_back_and_so_does_its_json(items: list[str | int]) -> None:
    text = list_text(items)
    assert text is not None
    assert items_of(text) == items
    assert list_text(text) == text
    assert list_text(json.dumps(items)) == text


@pytest.mark.parametrize(
    "cell",
    ["card", "3", '{"a": 1}', "[1.5]", "[null]", "[true]", "[[1]]", 3, 1.5, {"a": 1}, [["x"]], [None], ["\ud800"]],
)
def test_what_is_no_such_list_is_a_fault_that_quotes_nothing(cell: object) -> None:
    found = map_record(Located({"tokens": cell}, Line("f.jsonl", 7)), {Listed("tokens"): "tokens"})
    assert isinstance(found, Misfit)
    assert "list" in found.reason
    assert repr(cell) not in found.reason + found.remedy + found.detail


@pytest.mark.parametrize("row", [{}, {"tokens": None}, {"tokens": ""}])
def test_a_missing_list_is_missing(row: dict[str, object]) -> None:
    found = map_record(Located(row, Line("f.jsonl", 7)), {Listed("tokens"): "tokens"})
    assert isinstance(found, Misfit)
    assert "empty or missing" in found.reason


def test_a_list_in_another_column_is_a_fault_as_before() -> None:
    assert isinstance(map_record(Located({"text": ["a"]}, Line("f", 1)), {"text": "text"}), Misfit)


def test_json_and_csv_give_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"tokens": ["New", "York"]}\n', encoding="utf-8")
    (tmp_path / "a.csv").write_text('tokens\n"[""New"",  ""York""]"\n', encoding="utf-8")
    read = [
        read_fitting(str(tmp_path / name), mapping={}, required=(Listed("tokens"),))[0].records
        for name in ("a.jsonl", "a.csv")
    ]
    assert read[0] == read[1] == [{"tokens": '["New", "York"]'}]


def test_words_of_a_list_stand_in_a_row() -> None:
    assert listed_words(Listed("tokens"), '["New", "York"]') == "New York"
    assert listed_words("text", "[a]") == "[a]"


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ([{"role": "user", "content": "a", "name": "x"}], '[{"role": "user", "content": "a"}]'),
        ('[{"content": "a", "role": "user"}]', '[{"role": "user", "content": "a"}]'),
        ([], "[]"),
        ([{"role": "user", "content": None}], None),
        ([{"role": "user"}], None),
        (["a"], None),
        ({"role": "user", "content": "a"}, None),
        ([{"role": "user", "content": "\ud800"}], None),
    ],
)
def test_each_row_of_the_table_of_turns(cell: object, text: str | None) -> None:
    assert Turns("messages").text(cell) == text
    assert text is None or Turns("messages").words(text) == "a" * len(turns_of(text))
