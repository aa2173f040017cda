"""Command lines as one would type them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from llmchain_fl.compare.outcome import Outcome
from llmchain_fl.compare.plan import Comparison


def compare_command(name: str, options: Sequence[str]) -> str:
    """The command that makes, or goes on with, a whole comparison."""
    return shlex.join(["llmchain-fl", "compare", name, *options])


def simulate_command(comparison: Comparison, outcome: Outcome) -> str:
    """The command that plays one cell alone."""
    settings = [part for line in outcome.settings for part in ("--set", line.replace(" = ", "=", 1))]
    return shlex.join(["llmchain-fl", "simulate", comparison.scenario, *settings])
