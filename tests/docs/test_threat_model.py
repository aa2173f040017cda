"""Every defence that docs/threat-model.md names is a function, a class or a method of the file that it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::([\w.]+)`", PAGE)))
ACTORS = ["server's operator", "Another site", "on the network", "insider", "holds the adapter", "SuperLink's host"]


def names_in(path: str) -> set[str]:
    """``function``, ``Class``, ``Class.method`` of a file."""
    found = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[f"{path}::{name}" for path, name in NAMED])
def test_what_is_named_as_a_defence_is_there(path: str, name: str) -> None:
    assert (ROOT / path).is_file()
    assert name in names_in(path)


def test_every_actor_has_a_section_with_a_defence_in_every_row_and_there_is_an_honest_list() -> None:
    sections = dict(zip(*[iter(re.split(r"^## (.+)$", PAGE, flags=re.M)[1:])] * 2, strict=True))
    for actor in ACTORS:
        (text,) = [text for title, text in sections.items() if actor in title]
        rows = [row for row in text.splitlines() if row.startswith("| ")][1:]
        assert len(rows) >= 4
        assert "::" in text
    assert sections["Not defended"].count("\n* ") >= 10
    assert len(NAMED) > 60
