"""One Arrow column -> Python cells, each cell by itself: one that cannot be converted takes no other with it.

==================================  ===========================================================================
a cell                              becomes
==================================  ===========================================================================
text in UTF-8                       str
text that is not UTF-8              ``UNREADABLE``, which is no text (``columns.cell_text``)
null                                None
a number, decimal, true/false       int, float, Decimal, bool
a struct                            dict of its fields, each by this table
a date, list, map, bytes, ...       ``UNREADABLE``, without being looked at (far dates have no Python value)
==================================  ===========================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow


class _Unreadable:
    """Stands for a cell that is no text, no number and no truth value."""


UNREADABLE = _Unreadable()


def column_cells(column: pyarrow.ChunkedArray) -> list[object]:
    """The cells of a column, in order.

    Raises:
        Exception: the column's memory is damaged (offsets beyond its data, indices beyond its dictionary); pyarrow
            would read past its end. Never passed on: see ``foreign.attempt``.
    """
    return [cell for chunk in column.chunks for cell in _cells(chunk)]


def _cells(array: pyarrow.Array) -> list[object]:
    import pyarrow
    from pyarrow import types

    kind = array.type
    if types.is_dictionary(kind):
        words = _cells(array.dictionary)
        array.indices.validate(full=True)
        return [None if at is None else _word(words, at) for at in array.indices.to_pylist()]
    as_bytes = {
        pyarrow.string(): pyarrow.binary(),
        pyarrow.large_string(): pyarrow.large_binary(),
        pyarrow.string_view(): pyarrow.binary_view(),
    }.get(kind)
    if as_bytes is not None:
        raw = array.view(as_bytes)
        raw.validate(full=True)
        return [None if cell is None else _text(cell) for cell in raw.to_pylist()]
    if types.is_struct(kind) and kind.num_fields:
        names = [kind.field(at).name for at in range(kind.num_fields)]
        fields = zip(*(_cells(field) for field in array.flatten()), strict=True)
        there = array.is_valid().to_pylist()
        return [dict(zip(names, row, strict=True)) if known else None for row, known in zip(fields, there, strict=True)]
    if not _is_plain(kind):
        return [UNREADABLE if there else None for there in array.is_valid().to_pylist()]
    array.validate(full=True)
    return array.to_pylist()  # type: ignore[no-any-return]


def _is_plain(kind: pyarrow.DataType) -> bool:
    """Whether every value of this type is a Python number, decimal, truth value or nothing."""
    from pyarrow import types

    tests = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean, types.is_null)
    return any(test(kind) for test in tests)


def _text(data: bytes) -> object:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return UNREADABLE


def _word(words: list[object], at: int) -> object:
    if not 0 <= at < len(words):
        raise IndexError("an index beyond its dictionary")
    return words[at]
