"""``Comparison`` -> TOML text that ``compare/read.py`` reads back to an equal value."""

from __future__ import annotations

import json
from collections.abc import Iterable

from llmchain_fl.compare.plan import Axis, Comparison, Only
from llmchain_fl.compare.settings import key_of
from llmchain_fl.config.write import table_to_toml


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
