"""Arrow columns: each cell by itself; a column whose memory is damaged is an error before anything is read of it."""

from __future__ import annotations

import struct

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.data.arrow_cells import UNREADABLE, column_cells

CELLS = st.none() | st.binary(max_size=4) | st.text(max_size=4).map(str.encode)
KINDS = [(pyarrow.binary(), pyarrow.string()), (pyarrow.large_binary(), pyarrow.large_string())]


def text_of(cell: bytes | None) -> object:
    """By another road: what decodes to a text and back to the same bytes."""
    text = None if cell is None else cell.decode("utf-8", "surrogateescape")
    return text if text is None or not any("\ud800" <= character <= "\udfff" for character in text) else UNREADABLE


@given(cells=st.lists(CELLS, max_size=6), kind=st.sampled_from(KINDS), start=st.integers(0, 3))
def test_text_cells_are_texts_or_unreadable_one_by_one(
    cells: list[bytes | None], kind: tuple[pyarrow.DataType, pyarrow.DataType], start: int
) -> None:
    texts = pyarrow.array(cells, kind[0]).view(kind[1])[start:]
    assert column_cells(pyarrow.chunked_array([texts])) == [text_of(cell) for cell in cells[start:]]


def test_numbers_and_truth_values_stay_and_all_else_is_unreadable() -> None:
    columns = {"n": [1, None], "x": [0.5, None], "t": [True, None], "l": [["a"], None], "d": [b"x", None]}
    table = pyarrow.table(columns)
    found = {name: column_cells(table.column(name)) for name in columns}
    assert found == {**columns, "l": [UNREADABLE, None], "d": [UNREADABLE, None]}


def column(kind: pyarrow.DataType, length: int, *buffers: bytes) -> pyarrow.ChunkedArray:
    parts = [None, *(pyarrow.py_buffer(buffer) for buffer in buffers)]
    return pyarrow.chunked_array([pyarrow.Array.from_buffers(kind, length, parts)])


@pytest.mark.parametrize(
    "damaged",
    [
        column(pyarrow.string(), 2, struct.pack("<iii", 0, 10**9, 2), b"ab"),
        column(pyarrow.string(), 2, struct.pack("<iii", 0, -5, 2), b"ab"),
        column(pyarrow.large_string(), 2, struct.pack("<qqq", 0, 2**60, 2), b"ab"),
    ],
    ids=["beyond", "before", "far beyond"],
)
def test_offsets_beyond_the_data_are_an_error(damaged: pyarrow.ChunkedArray) -> None:
    with pytest.raises(pyarrow.ArrowInvalid, match="ffset"):
        column_cells(damaged)


@pytest.mark.parametrize("index", [2, -1, 2**31 - 1])
def test_an_index_beyond_its_dictionary_is_an_error(index: int) -> None:
    indices = pyarrow.array([0, index], pyarrow.int32())
    words = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array(["a", "b"]), safe=False)
    with pytest.raises(IndexError, match="beyond its dictionary"):
        column_cells(pyarrow.chunked_array([words]))
