"""TOML and ``--set key=value`` -> ``RunConfig``, or one ``ConfigError`` with every fault in the user's words."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import pydantic

from llmchain_fl.config.cross import cross_faults
from llmchain_fl.config.schema import RunConfig, Section
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.toml_file import parse_toml, read_toml, tree_fault
from llmchain_fl.core.words import nearest, one_line
from llmchain_fl.guards import GUARDS

MOST_FAULTS = 100
"""Lines of one error; of a file that is no configuration at all the rest says nothing new."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120

_BRANCHES = frozenset({"str", "list[str]", "dict[str,str]"})
"""How pydantic names the three ways to write a list of labels; no part of a key."""


def known_keys(guards: bool = True) -> list[str]:
    """Every dotted key a configuration may have, in the order of the schema (``stage.name`` for the stage table).

    ``guards``: with the sections of all guards, for which their files are imported.
    """
    return [key for key, _ in (*walk_fields(RunConfig), *(walk_guards() if guards else ()))]


def walk_guards() -> Iterator[tuple[str, pydantic.fields.FieldInfo]]:
    """The settings of every guard, as :func:`walk_fields`."""
    for name in GUARDS:
        yield from walk_fields(GUARDS[name].settings, f"continual.{name}.")


def walk_fields(section: type[Section], prefix: str = "") -> Iterator[tuple[str, pydantic.fields.FieldInfo]]:
    """Yield ``(dotted key, field)`` for every plain setting below ``section``."""
    for name, field in section.model_fields.items():
        inner = _section_of(field.annotation)
        if inner is not None:
            yield from walk_fields(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _section_of(annotation: Any) -> type[Section] | None:
    """The ``Section`` an annotation is, or is a list of; None for a plain setting."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    sections = [a for a in get_args(annotation) if isinstance(a, type) and issubclass(a, Section)]
    return sections[0] if sections else None


def parse_setting(text: str) -> tuple[list[str], Any]:
    """``"train.lr=0.01"`` -> ``(["train", "lr"], 0.01)``. A value that is no TOML is taken as a plain string.

    Raises:
        ConfigError: no ``=`` in it, or no key before it.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError([f"--set {_SHORT.repr(text)} is not of the form key=value"])
    text = value.strip()
    table, _ = parse_toml(f"value = {text}")
    return key.strip().split("."), table["value"] if set(table) == {"value"} else text


def apply_settings(tree: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Lay ``--set`` values over ``tree`` in place. ``stage.rounds=2`` sets all stages, ``stage.1.rounds=2`` one."""
    for text in settings:
        path, value = parse_setting(text)
        roots: list[Any] = [tree]
        if path[0] == "stage" and len(path) > 1:
            path, roots = _stages(tree, path[1:], text)
        for root in roots:
            _set(root, path, value, text)
    return tree


def _stages(tree: dict[str, Any], path: list[str], text: str) -> tuple[list[str], list[Any]]:
    """The stages that ``path`` means, and the rest of the path within them."""
    stages = tree.setdefault("stage", [{}])
    if not isinstance(stages, list):
        raise ConfigError([f"--set {_SHORT.repr(text)}: stage is no list of tables; write [[stage]]"])
    if not path[0].isdecimal():
        return path, stages
    if len(path[0]) > 9 or int(path[0]) >= len(stages) or len(path) < 2:
        raise ConfigError(
            [f"--set {_SHORT.repr(text)}: there are {len(stages)} stages, numbered from 0, each with settings"]
        )
    return path[1:], [stages[int(path[0])]]


def _set(node: Any, path: list[str], value: Any, text: str) -> None:
    for part in path[:-1]:
        if isinstance(node, dict):
            node = node.setdefault(part, {})
    if not isinstance(node, dict):
        raise ConfigError(
            [f"--set {_SHORT.repr(text)}: {'.'.join(path[:-1]) or 'stage'} is a single value, it has no parts"]
        )
    node[path[-1]] = value


def build(tree: Mapping[str, Any]) -> RunConfig:
    """Validate a nested mapping: each setting, then all of them together.

    Raises:
        ConfigError: with one line for every fault: the key, the value, the bound, the nearest known key.
    """
    run = parse(tree)
    faults = cross_faults(run)
    if faults:
        raise _error(faults)
    return run


def parse(tree: Mapping[str, Any]) -> RunConfig:
    """Validate each setting of a nested mapping by itself.

    Raises:
        ConfigError: see ``build``.
    """
    fault = tree_fault(tree)
    if fault:
        raise ConfigError([fault])
    try:
        return RunConfig.model_validate(dict(tree))
    except pydantic.ValidationError as error:
        lines = (line for fault in error.errors(include_url=False) for line in _in_words(fault))
        faults = list(islice(lines, MOST_FAULTS + 1))
    raise _error(faults)


def _error(faults: Sequence[str]) -> ConfigError:
    more = ["... and more"] * (len(faults) > MOST_FAULTS)
    return ConfigError([one_line(line) for line in _one_line_each(faults[:MOST_FAULTS])] + more)


def read_config(path: Path, settings: Sequence[str] = ()) -> RunConfig:
    """Read one TOML file, lay ``settings`` over it, validate.

    Raises:
        ConfigError: the file is missing, is no TOML, or has faults (all of them in one error).
    """
    return build(apply_settings(read_toml(path), settings))


def _in_words(fault: Any) -> Iterator[str]:
    """One pydantic fault -> lines a person reads."""
    key = ".".join(str(part) for part in fault["loc"] if part not in _BRANCHES)
    kind, value, context = fault["type"], fault.get("input"), fault.get("ctx", {})
    shown = _SHORT.repr(value)
    if kind == "extra_forbidden":
        inner = [f"{key}.{name}" for name in value] if isinstance(value, dict) and value else [key]
        known = known_keys(key.startswith("continual."))
        yield from (f"{name} is not a setting{nearest(_plain(name), known)}" for name in inner)
    elif kind == "literal_error":
        options = str(context.get("expected", ""))
        words = [option.strip("'") for option in options.replace(" or ", ", ").split(", ")]
        hint = nearest(value, words) if isinstance(value, str) else ""
        yield f"{key} = {shown}: must be {options}{hint}"
    elif kind in ("model_type", "dict_type"):
        yield f"{key} = {shown}: must be a table"
    else:
        text = str(fault["msg"])
        must = "must be " if text.startswith("Input should be ") else ""
        yield f"{key} = {shown}: {must}{text.removeprefix('Input should be ')}"


def _one_line_each(faults: Sequence[str]) -> list[str]:
    """Both wishes for one value (text or list) in one line."""
    merged: dict[str, str] = {}
    for line in faults:
        head, must, wish = line.partition(": must be ")
        merged[head] = f"{merged[head]} or {wish}" if must and head in merged else line
    return list(merged.values())


def _plain(key: str) -> str:
    """Drop list positions: ``stage.0.round`` -> ``stage.round``."""
    return ".".join(part for part in key.split(".") if not part.isdigit())
