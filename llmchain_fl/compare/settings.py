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
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llmchain_fl.compare.plan import Axis, Comparison, Only
from llmchain_fl.config.read import known_keys
from llmchain_fl.config.write import table_to_toml
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
            lines.append(table_to_toml({key: value}).strip())
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


def to_toml(comparison: Comparison) -> str:
    """The comparison in full, settings of the command line included."""
    head = {
        "title": comparison.title,
        "about": comparison.about,
        "scenario": comparison.scenario,
        "seeds": list(comparison.seeds),
        "score": comparison.score,
        "report": list(comparison.report),
        "continual": comparison.continual,
    }
    text = table_to_toml(head) + f"set = {_inline(comparison.settings)}\n"
    text += "".join(_axis(axis) for axis in comparison.axes)
    return text + "".join(_skip(rule) for rule in comparison.skip)


def _axis(axis: Axis) -> str:
    settings = {"name": axis.name, "repeat": axis.repeat, "baseline": axis.baseline}
    plain = {key: value for key, value in settings.items() if value not in ("", False)}
    lines = [f"{_quoted(label)} = {_inline(lines)}" for label, lines in axis.values.items()]
    return "\n".join(["", "[[axis]]", table_to_toml(plain).strip(), "[axis.values]", *lines, ""])


def _skip(rule: Only) -> str:
    lines = [f"{_quoted(axis)} = [{', '.join(map(_quoted, labels))}]" for axis, labels in rule.items()]
    return "\n".join(["", "[[skip]]", *lines, ""])


def _inline(lines: Iterable[str]) -> str:
    """Setting lines as one inline table, their keys quoted."""
    parts = [f"{_quoted(key_of(line))} = {line.partition(' = ')[2]}" for line in lines]
    return "{ " + ", ".join(parts) + " }" if parts else "{}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
