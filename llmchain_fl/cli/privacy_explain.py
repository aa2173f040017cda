"""``llmchain-fl privacy explain``: what a stated noise setting is worth, as one page of text or as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.privacy.explain import ANOTHER, NONE, Reading, Stated, ours, warnings
from llmchain_fl.privacy.explain_peers import SOURCES, flower, nvflare, peer_warnings
from llmchain_fl.report import wording

READABLE = 1000.0
"""An epsilon above this is shown without decimals, and above its square with a power of ten."""


def show_explanation(stated: Stated, file: Path | None) -> None:
    """Print the page; with ``file`` write everything it says there as JSON too.

    Raises:
        ConfigError: the file cannot be written; nothing was printed.
    """
    readings = [*flower(stated), *nvflare(stated), *ours(stated)]
    if file is not None:
        _write(file, as_dict(stated, readings))
    _print(stated, readings)


def as_dict(stated: Stated, readings: list[Reading]) -> dict[str, Any]:
    """Everything the page says, as plain values; an epsilon without a bound is null."""
    return {
        "stated": asdict(stated),
        "textbook_noise_std": stated.textbook_std,
        "readings": [
            {
                "name": reading.name,
                "call": reading.call,
                "noise_std": reading.std,
                "noise_on": reading.on,
                "unit": reading.unit,
                "epsilon_one_round": _finite(reading.one),
                "epsilon_all_rounds": _finite(reading.all),
                "delta": stated.d,
            }
            for reading in readings
        ],
        "verdict": verdict(stated),
        "warnings": [*warnings(stated), *peer_warnings(stated)],
        "sources": list(SOURCES),
    }


def verdict(stated: Stated) -> str:
    """In one sentence: what was stated, and what its noise is worth."""
    std = stated.textbook_std
    if std is None:
        return ""
    one, other = (stated.of_gaussian(moved * stated.c / std if std else math.inf) for moved in (1, 2))
    noise = f"noise of standard deviation {std:.3g} on each value" if std else "no noise at all"
    return (
        f'Stated as "epsilon {stated.epsilon:g}": {noise} of an update of length up to {stated.c:g}. It is worth '
        f"epsilon {figure(one)} a release for telling whether the update came, {figure(other)} for telling it from "
        f"another one, at delta {wording.power(stated.d)}."
    )


def figure(value: float) -> str:
    """An epsilon, rounded up, of any size: 4.38, 12,346, 2.14e8."""
    if not math.isfinite(value) or value < READABLE:
        return wording.epsilon_text(value)
    if value < READABLE**2:
        return f"{math.ceil(value):,}"
    power = math.floor(math.log10(value))
    digits = math.ceil(value / 10.0 ** (power - 2) - 1e-9)
    return f"{digits / 100:g}e{power}" if digits < 1000 else f"1e{power + 1}"


def _write(file: Path, fields: dict[str, Any]) -> None:
    try:
        file.write_text(json.dumps(fields, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"--json {file}: cannot be written: {error.strerror}"], remedy="name another file") from None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _print(stated: Stated, readings: list[Reading]) -> None:
    console = Console()

    def say(text: str = "") -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say("What a stated noise setting is worth. Nothing was read, nothing is spent.\n")
    if words := verdict(stated):
        say(words + "\n")
    say(f"The same numbers as each mechanism takes them (epsilon at delta {wording.power(stated.d)}):")
    console.print(_table(stated, readings))
    say(f'"{NONE}": one site\'s update came or did not; "{ANOTHER}": what one person\'s records may do to it.')
    say("\nRead as:")
    for call in dict.fromkeys(f"{reading.name.split(',')[0]}: {reading.call}" for reading in readings):
        say(f"  {call}")
    say("\nWarnings:")
    for sentence in (*warnings(stated), *peer_warnings(stated)):
        say(f"  ! {sentence}")
    say("\nSources:")
    for source in SOURCES:
        say(f"  {source}")


def _table(stated: Stated, readings: list[Reading]) -> Table:
    every = wording.count(stated.rounds, "round")
    heads = ["one round", every] if stated.rounds > 1 else ["one round"]
    table = Table(
        Column("mechanism", overflow="fold"), "noise (std)", "on the", "told apart", *heads, box=None, padding=(0, 1)
    )
    for reading in readings:
        noise = "sites?" if reading.std is None else f"{reading.std:.3g}"
        figures = [figure(value) if math.isfinite(value) else "unbounded" for value in (reading.one, reading.all)]
        table.add_row(reading.name, noise, reading.on, reading.unit, *figures[: len(heads)])
    return table
