"""What a kind of task is called stands in its table, and in no other code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from llmchain_fl.core.tasks.kind import BASE_KINDS, TASKS

ROOT = Path(__file__).resolve().parents[2]
TABLES = (
    "llmchain_fl/core/tasks/kind.py",
    "llmchain_fl/core/tasks/kinds.py",
    "llmchain_fl/serve/tasks.py",  # how each is served
    "llmchain_fl/serve/reading.py",  # two kinds that are served by routes of their own
    "llmchain_fl/serve/routes_reading.py",
    "llmchain_fl/feedback/record.py",  # of which feedback trains something
    "llmchain_fl/loop/settings.py",  # made for one kind, whatever others there are: the loop, the monitor, the suite
    "llmchain_fl/loop/turn.py",
    "llmchain_fl/monitor/reader.py",
    "llmchain_fl/suite/run.py",
)
DEFAULT = "llmchain_fl/config/schema.py"
BASES = {
    "llmchain_fl/adapter/card.py",
    "llmchain_fl/core/base_model.py",
    "llmchain_fl/core/first_pass.py",
    "llmchain_fl/core/readable.py",
    "llmchain_fl/export.py",
    "llmchain_fl/serve/engine.py",
    "simulations/own_trainer.py",
}
"""Where "causal-lm" is a kind of base model."""
TRIALS = ("simulations/audit/", "simulations/mutant_site.py")
"""Runs on made-up records, which choose a task."""


def strings() -> Iterator[tuple[str, str]]:
    for room in ("llmchain_fl", "client", "server", "simulations"):
        for path in (ROOT / room).rglob("*.py"):
            here = path.relative_to(ROOT).as_posix()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and node.value in TASKS:
                    yield here, str(node.value)


def test_no_other_code_knows_what_a_task_is_called() -> None:
    found = [
        (here, name)
        for here, name in strings()
        if here not in (*TABLES, DEFAULT) and not here.startswith(TRIALS) and not (name in BASE_KINDS and here in BASES)
    ]
    assert found == []
