"""Public records on their way to a site: JSON lines in one uint8 array, and which of them a step looks at.

A site gets them inside the guards' payload, from a server it need not trust: what is read is checked as a stranger's.
Which records a step uses follows from the run's seed, the round and the step alone, never from private data.

==============================  ============================================================
case                            result
==============================  ============================================================
no record                       an empty array, and back
the same records                the same bytes, on every machine
another column (a person)       does not travel
more than 4 MiB, 10,000         DataError when packed, WireError when read
not UTF-8, not JSON, no object,  WireError; nothing of the contents is said
an unknown key, a value that is
no text, deep nesting
==============================  ============================================================
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence

import numpy as np

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import SAME, WireError
from llmchain_fl.core.tasks.base import Examples, Task

Row = Mapping[str, str]
COLUMNS = (
    *("text", "label", "prompt", "answer", "text2", "labels", "tokens", "tags"),
    *("question", "context", "answers", "answer_start", "stage"),
)
"""What of a public record travels. ``stage``: name of the stage it belongs to, if any."""
MAX_BYTES = 2**22
MAX_RECORDS = 10_000


def unpack(packed: object) -> tuple[dict[str, str], ...]:
    """What :func:`pack` made.

    Raises:
        WireError: anything else; never with a word of it.
    """
    if not (isinstance(packed, np.ndarray) and packed.dtype == np.uint8 and packed.ndim == 1):
        raise WireError("public records came as something else than bytes", remedy=SAME)
    if packed.size > MAX_BYTES:
        raise WireError(f"public records of {packed.size} bytes, at most {MAX_BYTES}", remedy=SAME)
    try:
        lines = packed.tobytes().decode("utf-8").split("\n") if packed.size else []
    except UnicodeDecodeError:
        raise WireError("public records are not UTF-8", remedy=SAME) from None
    if len(lines) > MAX_RECORDS:
        raise WireError(f"{len(lines)} public records, at most {MAX_RECORDS}", remedy=SAME)
    return tuple(_row(line) for line in lines)


def _row(line: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise WireError("a public record is not JSON", remedy=SAME) from None
    if not isinstance(row, dict) or not row or not set(row) <= set(COLUMNS):
        raise WireError("a public record has other columns than a record has", remedy=SAME)
    if not all(isinstance(value, str) and _is_text(value) for value in row.values()):
        raise WireError("a public record holds something else than text", remedy=SAME)
    return row


def _is_text(value: str) -> bool:
    """Whether it can be written as UTF-8: an escape in JSON can name half a surrogate pair."""
    return not any("\ud800" <= sign <= "\udfff" for sign in value)


def draw(count: int, size: int, key: Sequence[int], step: int) -> list[int]:
    """Numbers of the records of one step: ``size`` of ``count`` without repetition (all if there are fewer).

    Args:
        count: public records there are.
        size: wanted.
        key: (seed of the run, round).
        step: of the local loop, from 0.
    """
    source = np.random.Generator(np.random.PCG64(np.random.SeedSequence([*map(int, key), step])))
    return [int(i) for i in source.choice(count, size=min(size, count), replace=False)]


class PublicSample:
    """The site's half: the records, and a new draw of them at each step of the round.

    Raises:
        WireError: the payload holds no records as :class:`PublicShelf` sends them.
    """

    def __init__(self, prefix: str, payload: Arrays, size: int) -> None:
        packed = payload.get(f"{prefix}.rows")
        self.rows = () if packed is None else unpack(packed)
        key = np.asarray(payload.get(f"{prefix}.draw", np.zeros(2, dtype=np.int64)))
        if key.shape != (2,) or key.dtype.kind not in "iu" or (key < 0).any():
            raise WireError("the key of the public draws is no pair of numbers", remedy=SAME)
        self._key, self._size, self._step = [int(part) for part in key], size, 0
        self._packed = b"" if packed is None else packed.tobytes()

    def __bool__(self) -> bool:
        return bool(self.rows)

    def examples(self, task: Task, *, answered: bool = False) -> Examples:
        """All records as token ids; kept from round to round, with what the frozen layers make of them.

        ``answered``: each has the label of a classifier, also those that a later step draws.

        Raises:
            WireError: one has none of the list.
        """
        examples = _encoded(task, self._packed)  # type: ignore[arg-type]  # every object has a hash
        if answered and (examples.targets < 0).any():
            raise WireError("a public record has no label of the list", remedy=SAME)
        return examples

    def next(self) -> list[int]:
        """Numbers of the records of the next step."""
        self._step += 1
        return draw(len(self.rows), self._size, self._key, self._step - 1)

    def next_rows(self, examples: Examples) -> list[int]:
        """The same as rows of ``examples``."""
        return [int(row) for row in examples.rows_of(self.next())]


@functools.lru_cache(maxsize=2)
def _encoded(task: Task, packed: bytes) -> Examples:
    """A guard lives for one round; its records stay the same for a stage."""
    return task.encode(unpack(np.frombuffer(packed, dtype=np.uint8)))
