"""Tables of settings in a comparison -> lines ``key = value``, the form that ``--set`` takes too; and back to TOML.

| in the file | line |
|---|---|
| ``"train.lr" = 0.01`` | ``train.lr = 0.01`` |
| ``train.lr = 0.01`` or ``train = { lr = 0.01 }`` | the same |
| ``stage.rounds = 4`` | ``stage.rounds = 4``: every stage of the scenario |
| ``"data.columns" = { text = "x" }`` | ``data.columns.text = "x"`` |
| ``seed`` | a fault: seeds stand in ``seeds`` |
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tomli_w

from llmchain_fl.compare.plan import Axis, Comparison
from llmchain_fl.config.read import known_keys
from llmchain_fl.core.words import nearest


def setting_lines(table: object, where: str, faults: list[str]) -> tuple[str, ...]:
    """The lines of one table, in its order.

    Args:
        table: what the file holds; anything but a table is a fault.
        where: how the table is called in a fault, such as ``axis rule, "ffa"``.
        faults: every fault found is added here, in the user's words.
    """
    if not isinstance(table, Mapping):
        faults.append(f"{where} = {table!r}: must be a table of settings")
        return ()
    lines = []
    for key, value in _leaves(table):
        fault = _fault(key, value)
        if fault:
            faults.append(f"{where}: {fault}")
        else:
            lines.append(f"{key} = {one_line(value)}")
    return tuple(lines)


def key_of(line: str) -> str:
    """``train.lr = 0.01`` -> ``train.lr``."""
    return line.partition(" = ")[0]


def plain_key(line: str) -> str:
    """The same without the number of a stage: ``stage.0.rounds`` -> ``stage.rounds``."""
    return ".".join(part for part in key_of(line).split(".") if not part.isdecimal())


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _fault(key: str, value: object) -> str:
    """Why this is no setting of a cell; empty where it is one."""
    plain = plain_key(key)
    known = known_keys(plain.startswith("continual."))
    if plain == "seed":
        return "seed is not a setting of a comparison; name the seeds in seeds = [1, 2, 3]"
    if isinstance(value, Mapping):
        return f"{key} is an empty table; leave it out"
    if plain in ("stage", *known) or any(plain.startswith(f"{name}.") for name in known):
        return ""
    parts = plain.split(".")  # a table by name has the name in the middle: stream.arrival.site-03.joins
    if any(".".join(parts[:place] + parts[place + 1 :]) in known for place in range(1, len(parts) - 1)):
        return ""
    return f"{key} is not a setting{nearest(plain, known)}"


def one_line(value: Any) -> str:
    """A TOML value on one line, as ``--set`` takes it; JSON strings are TOML basic strings."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{one_line(str(name))} = {one_line(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(one_line, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return tomli_w.dumps({"x": value}).partition(" = ")[2].strip()


def to_toml(comparison: Comparison) -> str:
    """The comparison in full, with the settings of the command line; ``read_comparison`` reads it back."""
    return tomli_w.dumps(
        {
            "title": comparison.title,
            "about": comparison.about,
            "scenario": comparison.scenario,
            "seeds": list(comparison.seeds),
            "score": comparison.score,
            "report": list(comparison.report),
            "continual": comparison.continual,
            "set": _table(comparison.settings),
            "axis": [_axis(axis) for axis in comparison.axes],
            "skip": [{axis: list(labels) for axis, labels in rule.items()} for rule in comparison.skip],
        }
    )


def _axis(axis: Axis) -> dict[str, Any]:
    values = {label: _table(lines) for label, lines in axis.values.items()}
    fields = {"name": axis.name, "repeat": axis.repeat, "baseline": axis.baseline}
    return {**{key: value for key, value in fields.items() if value not in ("", False)}, "values": values}


def _table(lines: Iterable[str]) -> dict[str, Any]:
    """Setting lines as a table of dotted keys."""
    return {key_of(line): tomllib.loads(f"x = {line.partition(' = ')[2]}")["x"] for line in lines}
