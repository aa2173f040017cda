"""What a rule, a robust step or a guard is called stands in its own file and in its table, and in no other code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmchain_fl.aggregation import RULES
from llmchain_fl.guards import GUARDS
from llmchain_fl.robust import ROBUST

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    path for room in ("llmchain_fl", "client", "server", "simulations") for path in (ROOT / room).rglob("*.py")
)
TABLES = {f"llmchain_fl/{table}" for table in ("aggregation/__init__.py", "robust/__init__.py", "guards/__init__.py")}
TABLES |= {"llmchain_fl/core/guards/spec.py"}
OTHER_MEANING = {
    "gate": ("simulations/audit/", "llmchain_fl/evidence/verify.py"),  # the gate before a release, and its runs
    "anchor": (
        "client/site.py",
        "llmchain_fl/cli/privacy_ledger.py",
        "llmchain_fl/privacy/drill/",
        "simulations/audit/set_back.py",
    ),  # of a ledger
    "mask": ("llmchain_fl/core/secure/",),  # on the numbers of a secure sum
    "slots": (
        "llmchain_fl/data/generated/bank_templates.py",
        "llmchain_fl/adapter/card.py",
    ),  # gaps of a template; pairs in a file
    "replay": ("llmchain_fl/hub/",),  # of an index that was seen already
    "route": ("llmchain_fl/serve/gate.py",),  # of a request
    "rehearsal": (
        "llmchain_fl/core/privacy/plan.py",
        "llmchain_fl/evidence/verify.py",
        "server/privacy_book.py",
        "simulations/audit/taking_part.py",
    ),  # a field of the plan
}
"""English words that mean something else in these places."""


def owners() -> dict[str, set[str]]:
    """Name -> the files that are its own."""
    halves = {name: [guard.server, guard.site, guard.settings] for name, guard in GUARDS.items()}
    parts = {
        **{name: [type(rule)] for name, rule in RULES.items()},
        **{name: [step] for name, step in ROBUST.items()},
        **halves,
    }
    return {
        name: {f"{part.__module__.replace('.', '/')}.py" for part in found if part is not None}
        for name, found in parts.items()
    }


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """The texts in the code of a file, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.lineno, node.value


WORDS = frozenset(RULES)
"""No English words: they are seen anywhere in a text."""


def named_in(text: str) -> set[str]:
    """The names that a text is, that it quotes, or that stand in it as words and are no English ones."""
    return {text, *re.findall(r"[\"`]([\w-]+)[\"`]", text), *(WORDS & set(re.findall(r"[\w-]+", text)))}


def found() -> list[str]:
    lines = []
    own = owners()
    for path in FILES:
        here = path.relative_to(ROOT).as_posix()
        for line, text in strings(path) if here not in TABLES else ():
            lines += [
                f"{here}:{line}: {name}"
                for name in own.keys() & named_in(text)
                if here not in own[name] and not here.startswith(OTHER_MEANING.get(name, ("/",)))
            ]
    return lines


def test_no_other_code_knows_what_a_rule_a_robust_step_or_a_guard_is_called() -> None:
    assert found() == []


def test_every_place_with_another_meaning_is_still_there() -> None:
    for name, places in OTHER_MEANING.items():
        for place in places:
            texts = (
                text
                for path in FILES
                if path.relative_to(ROOT).as_posix().startswith(place)
                for _, text in strings(path)
            )
            assert any(name in named_in(text) for text in texts), f"{place} has no {name} any more"


@pytest.mark.parametrize(
    ("text", "name", "seen"),
    [
        ("ffa", "ffa", True),
        ("choose ffa, or another", "ffa", True),
        ("merge them", "merge", False),
        ('guard "merge"', "merge", True),
        ("multi-krum", "krum", False),
    ],
)
def test_a_name_is_seen_alone_quoted_or_as_a_word_of_its_own(text: str, name: str, seen: bool) -> None:
    assert (name in named_in(text)) == seen
