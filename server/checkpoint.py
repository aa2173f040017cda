"""The state of a round on disk: one safetensors file, written whole or not at all.

``state/round-000012.safetensors`` holds what every stateful part of the run says of itself: a tree of plain values with
arrays among them. The arrays are tensors of the file, named by their place in the tree; everything else is JSON in its
header, where ``{"$array": NAME}`` stands for an array. The last two files are kept. Which parts there are:
``server/parts.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.errors import RunError

KEEP = 2
VERSION = 2
"""Of the format."""
ARRAY = "$array"
Saved = dict[str, Any]
"""Part -> its tree."""


class Stateful(Protocol):
    """A part of a run that remembers something from round to round."""

    def state(self) -> Mapping[str, Any]:
        """A tree of plain values and arrays."""

    def load_state(self, state: Any) -> None:
        """Take up such a tree, as it was saved."""


def save_state(folder: Path, number: int, parts: Mapping[str, Stateful]) -> Path:
    """Write the state after round ``number``; older ones but the last are removed."""
    arrays: Arrays = {}
    facts = {name: _without_arrays(part.state(), name, arrays) for name, part in parts.items()}
    path = folder / f"round-{number:06d}.safetensors"
    header = {"state": json.dumps({"version": VERSION, "parts": facts})}
    atomic_write(path, save({name: np.ascontiguousarray(value) for name, value in arrays.items()}, metadata=header))
    for old in sorted(folder.glob("round-*.safetensors"))[:-KEEP]:
        old.unlink()
    return path


def read_state(folder: Path) -> Saved | None:
    """What was saved last, or None if nothing was.

    Raises:
        RunError: the last file is damaged (it is written atomically: the disk or a hand did it), or of another version.
    """
    files = sorted(folder.glob("round-*.safetensors"))
    if not files:
        return None
    try:
        with safe_open(files[-1], framework="numpy") as opened:
            facts: dict[str, Any] = json.loads(opened.metadata()["state"])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
        if facts.get("version") != VERSION:
            raise _other_version(files[-1])
        return {name: _with_arrays(tree, arrays) for name, tree in facts["parts"].items()}
    except (SafetensorError, LookupError, ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise RunError(f"{files[-1]} is damaged", remedy="delete it: the run goes on from the round before") from error


def load_state(saved: Saved, parts: Mapping[str, Stateful]) -> None:
    """Every part takes up its own.

    Raises:
        RunError: a part finds nothing of its own, or something that it does not know.
    """
    for name, part in parts.items():
        try:
            part.load_state(saved[name])
        except LookupError:
            raise _other_version(name) from None


def _other_version(source: Path | str) -> RunError:
    return RunError(
        f"the state of the run ({source}) was written by another version",
        remedy="go on with that one, or begin a new run from its adapter (adapter.start)",
    )


def _without_arrays(tree: Any, path: str, arrays: Arrays) -> Any:
    if isinstance(tree, np.ndarray):
        arrays[path] = tree
        return {ARRAY: path}
    if isinstance(tree, Mapping):
        return {str(key): _without_arrays(value, f"{path}/{key}", arrays) for key, value in tree.items()}
    return tree


def _with_arrays(tree: Any, arrays: Arrays) -> Any:
    if not isinstance(tree, dict):
        return tree
    if tree.keys() == {ARRAY}:
        return arrays[tree[ARRAY]]
    return {key: _with_arrays(value, arrays) for key, value in tree.items()}
