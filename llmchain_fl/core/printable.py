"""Names that others chose, on a terminal and in a log: nothing in them may move the cursor or begin a line."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""``text`` with everything that is not printable (``str.isprintable``) as an escape.

    =======================================  ==================
    character                                becomes
    =======================================  ==================
    letters, digits, signs, the plain blank  itself
    ESC                                      ``\x1b``
    a line break                             ``\x0a``
    a sign that turns the direction of text  ``\u202e``
    half of a surrogate pair                 ``\ud800``
    beyond the basic plane, unassigned       ``\U000e0001``
    =======================================  ==================
    """
    return "".join(sign if sign.isprintable() else _escaped(ord(sign)) for sign in text)


def _escaped(code: int) -> str:
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
