"""Columns: the project's names come out; an empty, strange or missing cell is refused without being shown."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.data.columns import cell_text
from llmchain_fl.core.data.rows import Line, Located, Rows
from llmchain_fl.core.errors import DataError
from llmchain_fl.data.numbered import number_rows
from llmchain_fl.data.source import how_many, map_columns

CANARY = "zebra-4711"


def rows_of(*rows: dict[str, object]) -> list[Located]:
    return number_rows(rows, "a.jsonl")


def fault(records: list[Located], mapping: dict[str, str] | None = None, *, private: bool = True) -> str:
    with pytest.raises(DataError) as caught:
        map_columns(records, mapping or {}, ("text", "label"), "a.jsonl", private=private)
    assert CANARY not in str(caught.value)
    return str(caught.value)


def test_columns_are_renamed_and_the_others_stay() -> None:
    records = rows_of({"utterance": " Hi ", "intent": "greet", "person": 7})
    mapping = {"text": "utterance", "label": "intent"}
    expected = [{"text": " Hi ", "label": "greet", "person": "7"}]
    assert map_columns(records, mapping, ("text", "label"), "a") == expected


def test_a_file_column_in_the_way_of_a_mapped_name_gives_way() -> None:
    assert map_columns(rows_of({"text": "old", "utterance": "new"}), {"text": "utterance"}, (), "a") == [
        {"text": "new"}
    ]


def test_a_column_without_a_mapping_has_its_own_name() -> None:
    records = rows_of({"text": "x", "intent": "a"})
    assert map_columns(records, {"label": "intent"}, ("text", "label"), "a") == [{"text": "x", "label": "a"}]


def test_two_columns_may_come_from_one() -> None:
    assert map_columns(rows_of({"t": "x"}), {"prompt": "t", "answer": "t"}, (), "a") == [{"prompt": "x", "answer": "x"}]


def test_a_mapped_column_is_kept_though_nobody_requires_it() -> None:
    records = rows_of({"text": "x", "clinic": "north"})
    assert map_columns(records, {"hospital": "clinic"}, ("text",), "a") == [{"hospital": "north", "text": "x"}]


@pytest.mark.parametrize("cell", [None, "", " ", float("nan"), ["p"], {"p": 1}])
def test_a_column_nobody_asks_for_is_left_out_where_it_is_empty_or_no_text(cell: object) -> None:
    records = rows_of({"text": "x", "person": "p"}, {"text": "y", "person": cell}, {"text": "z"})
    assert map_columns(records, {}, ("text",), "a") == [{"text": "x", "person": "p"}, {"text": "y"}, {"text": "z"}]


def test_a_required_person_must_be_everywhere() -> None:
    with pytest.raises(DataError, match=r"a:2: 1 record \(line 2\) has a column 'person' that is empty"):
        map_columns(number_rows([{"person": "p"}, {"person": ""}], "a"), {}, ("person",), "a")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("x ", "x "),
        ("", ""),
        (" \t\n", ""),
        (None, ""),
        (float("nan"), ""),
        (3, "3"),
        (3.0, "3"),
        (-0.5, "-0.5"),
        (float("inf"), "inf"),
        (True, "true"),
        (False, "false"),
        ([CANARY], None),
        ({"a": CANARY}, None),
        (b"x", None),
        (datetime.date(2026, 1, 1), None),
        ("\ud83d", None),
        (2**4096 - 1, str(2**4096 - 1)),
        (2**4096, None),
        pytest.param(10**5000, None, id="5,000 digits"),
        (float("-inf"), "-inf"),
        (1e300, str(int(1e300))),
        ("\U0001f600", "\U0001f600"),
    ],
)
def test_a_cell_becomes_text_by_the_table(cell: object, text: str | None) -> None:
    assert cell_text(cell) == text


@given(st.text())
def test_a_text_cell_stays_as_it_is_or_is_refused(cell: str) -> None:
    encodable = not any(0xD800 <= ord(character) < 0xE000 for character in cell)
    assert cell_text(cell) == ((cell if cell.strip() else "") if encodable else None)


def test_a_missing_column_of_a_public_file_lists_those_that_are_there_and_the_nearest() -> None:
    message = fault(rows_of({"texts": CANARY, "label": CANARY}), private=False)
    assert "no column 'text'; the columns are label, texts" in message
    assert "did you mean 'texts'? map it: text = the file's column" in message


def test_a_missing_mapped_column_names_both_sides() -> None:
    records, mapping = rows_of({"text": "x", "intent": "a"}), {"label": "intnet"}
    assert "no column 'intnet' (for 'label')" in fault(records, mapping)
    assert "did you mean 'intent'?" in fault(records, mapping, private=False)


def test_a_long_list_of_columns_is_cut() -> None:
    assert "c19, ..." in fault(rows_of({f"c{i:02}": "x" for i in range(30)}), private=False)


@pytest.mark.parametrize("private", [True, False])
def test_a_first_record_in_the_place_of_a_header_is_neither_shown_nor_suggested(private: bool) -> None:
    message = fault(rows_of({f"I lost {CANARY}": "x", "tex": "y"}), private=private)
    assert "the 2 names that are there are not shown: is the header line missing?" in message
    assert "did you mean" not in message


@given(names=st.lists(st.text("abcdexlt_", min_size=5, max_size=9), min_size=1, max_size=5, unique=True))
def test_no_name_of_a_private_file_is_shown_however_much_it_looks_like_one(names: list[str]) -> None:
    others = [f"{CANARY} {number}" for number in range(len(names))]
    assert fault(rows_of(dict.fromkeys(names, "x"))) == fault(rows_of(dict.fromkeys(others, "x")))


def test_empty_cells_are_counted_with_their_first_five_lines() -> None:
    empties = [{"text": cell, "label": CANARY} for cell in ("", " ", None, float("nan"), "", "")]
    message = fault(rows_of({"text": CANARY, "label": "a"}, *empties, {"label": "a"}))
    assert "a.jsonl:2: 7 records (lines 2, 3, 4, 5, 6, ...) have a column 'text' that is empty or missing" in message


def test_a_cell_that_is_no_text_is_named_by_line_only() -> None:
    message = fault(rows_of({"text": "x", "label": "a"}, {"text": [CANARY], "label": "a"}))
    assert "a.jsonl:2: 1 record (line 2) has a column 'text' that is no text" in message


def test_lines_of_another_file_are_not_mixed_in() -> None:
    assert how_many([Line("a", 4), Line("a", 5), Line("b", 9)]) == "3 records (lines 4, 5, ...) have"


def test_rows_give_selections_with_their_lines() -> None:
    rows = Rows([{"text": "x", "label": "a"}, {"text": "y"}], [Line("a", 3), Line("b", 1)], "folder")
    assert (len(rows), str(rows.lines[1])) == (2, "b:1")
    assert rows.select([1, 0]) == Rows(rows.records[::-1], rows.lines[::-1], "folder")


def test_rows_without_a_line_for_every_record_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="1 records and 0 lines"):
        Rows([{"text": CANARY}], [], "a")
