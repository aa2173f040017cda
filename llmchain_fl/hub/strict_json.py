"""JSON that somebody else wrote: bounded, each name once, plain finite numbers, or one refusal."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from llmchain_fl.core.foreign import attempt
from llmchain_fl.core.secure.identity import canonical
from llmchain_fl.hub.refused import refuse

MOST_DEPTH = 16
Tree = dict[str, Any]


def parse_object(data: bytes, name: str, most: int) -> Tree:
    """The object that ``data`` holds.

    ===========================================================  =========
    bytes                                                        refused
    ===========================================================  =========
    more than ``most``                                           size
    no UTF-8, no JSON, no object at the top                      form
    a name twice in an object                                    form
    NaN, Infinity, a number that overflows to it                 form
    nested deeper than ``MOST_DEPTH``                            size
    ===========================================================  =========

    Raises:
        HubError: see the table.
    """
    if len(data) > most:
        raise refuse("size", f"{name} has {len(data):,} bytes, at most {most:,}")
    tree = attempt(lambda: json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant))
    if not isinstance(tree, dict):
        raise refuse("form", f"{name} is no JSON object with each name once")
    fault = _fault(tree)
    if fault:
        raise refuse(*fault[:1], f"{name}: {fault[1]}")
    return tree


def parse_canonical(data: bytes, name: str, most: int) -> Tree:
    """As :func:`parse_object`, and written in the one way in which signed values are written.

    Raises:
        HubError: form, also where the same value is written in another way.
    """
    tree = parse_object(data, name, most)
    if canonical(tree) != data:
        raise refuse("form", f"{name} is not canonical JSON")
    return tree


def _once(pairs: list[tuple[str, Any]]) -> Tree:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a name twice")
    return tree


def _no_constant(_text: str) -> NoReturn:
    raise ValueError("no number")


def _fault(tree: object) -> tuple[str, str] | None:
    """(word, what) of a number that is not finite or of a nesting that is too deep."""
    level = [tree]
    for _ in range(MOST_DEPTH):
        inner: list[object] = []
        for value in level:
            if isinstance(value, float) and not math.isfinite(value):
                return "form", "a number is not finite"
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        if not inner:
            return None
        level = inner
    return "size", f"nested deeper than {MOST_DEPTH}"
