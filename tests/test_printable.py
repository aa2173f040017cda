"""Names that others chose, as they come out on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchain_fl.core.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("site-a, 12 rounds!", "site-a, 12 rounds!"),
        ("\u00e4 \u6f22", "\u00e4 \u6f22"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\r\t\x7f", "a\\x0ab\\x0d\\x09\\x7f"),
        ("\u202eabc\u2028", "\\u202eabc\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
        ("", ""),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_nothing_is_left_that_a_terminal_would_obey(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    assert (shown == text) == text.isprintable()
