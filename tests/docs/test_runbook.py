"""Every line that the runbook quotes is one that the code can print."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "runbook.md"
ROOMS = ("client", "llmchain_fl", "server")
QUOTED = re.compile(r"`([^`]+)`")
WORDS = {"no-answer", "wire", "error", "budget", "privacy"}
"""Reasons of a refusal: ``server/strikes.py`` has them all."""


def printed() -> list[str]:
    """Every literal text of the program, where a value stands in it NUL."""
    found = []
    for file in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values))
    return [" ".join(text.split(" ")) for text in found]


def quotes() -> list[str]:
    """What stands in code in the first column of its tables."""
    rows = [line.split(" | ")[0] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    return [text for row in rows for text in QUOTED.findall(row) if text not in WORDS]


TEXTS = printed()


def can_be_printed(quote: str, texts: list[str]) -> bool:
    """Whether the pieces between the dots stand in one literal, in this order."""
    pieces = [piece for piece in quote.split("...") if piece.strip()]
    pattern = re.compile(".*".join(re.escape(piece.strip()) for piece in pieces), re.S)
    return any(pattern.search(text) for text in texts)


@pytest.mark.parametrize("quote", quotes())
def test_what_the_runbook_quotes_can_be_printed(quote: str) -> None:
    told = quote.removeprefix("executor: ").removesuffix(" -9").replace("(errno 28)", "(errno ...)")
    told = told.replace("the ledger cannot", "... cannot")
    assert can_be_printed(told, TEXTS), quote


def test_the_runbook_has_a_row_for_each_kind_of_fault_and_each_row_says_what_it_costs() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) > 35
    assert all(len(row.strip("| ").split(" | ")) == 4 for row in rows)


@pytest.mark.parametrize("wrong", ["the moon is full", "the run died ... because of the moon"])
def test_what_nobody_prints_is_found_out(wrong: str) -> None:
    assert not can_be_printed(wrong, TEXTS)
