"""``RunConfig`` -> TOML text, so that a run directory says in full what was run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmchain_fl.config.schema import RunConfig


def to_toml(config: RunConfig) -> str:
    """The resolved configuration, every setting with its value; ``read_config`` reads it back to an equal value."""
    tree = config.model_dump()
    stages = tree.pop("stage")
    text = table_to_toml(tree)
    for stage in stages:
        text += "\n".join(["", "[[stage]]", *(f"{key} = {_value(value)}" for key, value in stage.items()), ""])
    return text


def table_to_toml(tree: Mapping[str, Any]) -> str:
    """A mapping with one level of sections as TOML: plain settings first, then a table for each section."""
    lines = [f"{key} = {_value(value)}" for key, value in tree.items() if not isinstance(value, dict)]
    for name, section in tree.items():
        if isinstance(section, dict):
            lines += ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in section.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """One TOML value. JSON strings are TOML basic strings; a float keeps its point (or is inf or nan), so its type."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_value(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, float):
        return repr(value) if any(c in repr(value) for c in ".en") else f"{value!r}.0"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return str(value)
