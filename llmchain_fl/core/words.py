"""The nearest known word, and one line that a terminal shows as it is."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def nearest(word: str, known: Sequence[str]) -> str:
    """``"; did you mean X?"`` for the nearest known word, or nothing. A bare last part is compared as well."""
    if len(word) > 100:
        return ""
    hits = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not hits:
        tails = {k.rsplit(".", 1)[-1]: k for k in known}
        hits = [tails[t] for t in difflib.get_close_matches(word.rsplit(".", 1)[-1], list(tails), n=1, cutoff=0.7)]
    return f"; did you mean {hits[0]}?" if hits else ""


def one_line(line: str) -> str:
    """One line that a terminal shows as it is: no control characters, no half pairs, not without end."""
    plain = line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return plain if len(plain) <= 400 else f"{plain[:400]} ..."
