"""CSV and TSV rows: those of the csv module where it finds no fault, and a rule for what a faulty row takes with it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.data.lines import Piece
from llmchain_fl.core.data.tables import MOST_CHARACTERS, Row, split_rows
from llmchain_fl.core.errors import DataError

TEXTS = st.text(st.sampled_from('a ,"\n\r\t\x00\x0b\u2028é'), max_size=40)


def lines_of(text: str, most: int) -> Iterator[Piece]:
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        for at in range(0, len(line), most):
            yield Piece(number, line[at : at + most])


def rows_of(text: str, *, quotes: bool = True, most: int = MOST_CHARACTERS) -> list[Row]:
    return list(split_rows(lines_of(text, most), "a.csv", delimiter="," if quotes else "\t", quotes=quotes))


def by_the_csv_module(text: str, *, quotes: bool) -> list[tuple[int, list[str]]] | None:
    """(first line, fields) of every row that is not empty; None where it finds a fault."""
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter="," if quotes else "\t", quoting=quoting, strict=quotes
    )
    found, start = [], 1
    try:
        for row in reader:
            found += [(start, row)] if row else []
            start = reader.line_num + 1
    except csv.Error:
        return None
    return found


@given(text=TEXTS, quotes=st.booleans(), most=st.sampled_from([1, 2, 3, MOST_CHARACTERS]))
def test_rows_are_those_of_the_csv_module_or_have_a_fault_as_there(text: str, quotes: bool, most: int) -> None:
    expected = by_the_csv_module(text, quotes=quotes)
    try:
        rows = rows_of(text, quotes=quotes, most=most if "\r\n" not in text else MOST_CHARACTERS)
    except DataError:
        assert expected is None
        return
    if expected is None:
        assert any(row.fault for row in rows)
    else:
        assert [(row.line, row.fields) for row in rows] == expected
        assert not any(row.fault for row in rows)


BAD = [
    ('"he said "no"",b\nx,y', [(1, "has a stray quote"), (2, "")]),
    ('x,"a"b\n"c",d', [(1, "has a stray quote"), (2, "")]),
    ('x,"a"b, "more, "quotes\nc,d', [(1, "has a stray quote"), (2, "")]),
    (f"{'x' * MOST_CHARACTERS},b\nx,y", [(1, ""), (2, "")]),
    (f"{'x' * (MOST_CHARACTERS + 1)},b\nx,y", [(1, "has a field over 1,048,576"), (2, "")]),
    (f'"{"x" * MOST_CHARACTERS}\n",b\nx,y', [(1, "has a field over 1,048,576"), (3, "")]),
    (f'"{"x," * MOST_CHARACTERS}",b\nx,y', [(1, "has a field over 1,048,576"), (2, "")]),
    ("\udcff,b\nx,y", [(1, "is not UTF-8"), (2, "")]),
    ('"two\n\udcff lines",b\nx,y', [(1, "is not UTF-8"), (3, "")]),
]


@pytest.mark.parametrize(("text", "expected"), BAD, ids=range(len(BAD)))
def test_a_fault_stays_with_its_row(text: str, expected: list[tuple[int, str]]) -> None:
    rows = rows_of(text)
    assert [row.line for row in rows] == [line for line, _ in expected]
    assert all(
        row.fault.startswith(fault) and bool(fault) == bool(row.fault)
        for row, (_, fault) in zip(rows, expected, strict=True)
    )
    assert rows[-1].fields == ["x", "y"] or rows[-1].fields[1] == "d"


@pytest.mark.parametrize("text", ['a\n"x\ny', 'a\n"x\ny"z\n', 'a\n"open,b\n"good",c\n', 'a\n"'])
def test_a_row_without_an_end_is_a_fault_of_the_file_and_names_where_it_starts(text: str) -> None:
    with pytest.raises(DataError, match=r"a\.csv:2: .*stray or unclosed quote.*nobody can tell where it ends"):
        rows_of(text)


def test_a_quote_without_end_takes_no_memory() -> None:
    """A hundred million characters behind an opening quote, of which none is kept."""
    pieces = (Piece(number, "x" * 999_999 + "\n") for number in range(2, 102))

    def all_of_it() -> Iterator[Piece]:
        yield Piece(1, '"\n')
        yield from pieces

    with pytest.raises(DataError, match="unclosed quote"):
        list(split_rows(all_of_it(), "a.csv", delimiter=",", quotes=True))
