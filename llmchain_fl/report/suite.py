"""``suite.json`` in words, for the terminal, the report and the card."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmchain_fl.core.errors import RunError

FILE = "suite.json"
MOST = 4 * 2**20


def read_suite(file: Path) -> dict[str, Any]:
    """What the suite wrote; {} where it was not played.

    Raises:
        RunError: it is damaged.
    """
    if not file.is_file():
        return {}
    try:
        with file.open("rb") as opened:
            suite = json.loads(opened.read(MOST))
        suite_lines(suite)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RunError(f"{file} is damaged", remedy="llmchain-fl evaluate RUN --suite writes it anew") from None
    return suite if isinstance(suite, dict) else {}


def suite_lines(suite: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, in words) of each part; those that were left out with the reason."""
    words: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
        "sureness": _sureness,
        "shift": _shift,
        "perturbation": _perturbation,
        "bias": _bias,
        "attribution": _attribution,
        "membership": lambda part: str(part["verdict"]),
    }
    lines = [(name, words[name](part)) for name, part in suite["parts"].items() if name in words]
    return [*lines, *((name, f"left out: {reason}") for name, reason in suite["left_out"].items())]


def _sureness(part: Mapping[str, Any]) -> str:
    risks = part["risk_at_coverage"]
    return (
        f"calibration error {part['ece']:.1%} ({part['ece_tempered']:.1%} at temperature {part['temperature']:.2f}), "
        f"Brier {part['brier']:.3f}; wrong {risks['1']:.1%} of all, {risks['0.8']:.1%} of the surest 80 %"
    )


def _shift(part: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {one['value']:.1%} +- {one['half_width']:.1%}" for name, one in part.items())


def _perturbation(part: Mapping[str, Any]) -> str:
    falls = []
    for strength in next(iter(part.values())):
        name, fall = max(((name, by[strength]["fall"]) for name, by in part.items()), key=lambda one: one[1])
        falls.append(f"{100 * fall:.1f} points at {float(strength):.0%} ({name})")
    return f"largest fall of accuracy under an edit: {', '.join(falls)}"


def _bias(part: Mapping[str, Any]) -> str:
    flips = [f"{name} {one['flips']:.1%} (gap {one['gap']:.3f})" for name, one in part.items()]
    return f"answers that change with who speaks: {', '.join(flips)}"


def _attribution(part: Mapping[str, Any]) -> str:
    if not part["texts"]:
        return "no text long enough"
    return (
        f"completeness error {part['completeness_error']:.1%}; without the tokens named the probability falls by "
        f"{part['comprehensiveness']:.3f}, without any others by {part['comprehensiveness_random']:.3f}"
    )
