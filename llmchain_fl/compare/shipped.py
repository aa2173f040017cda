"""The shipped comparisons: named files, each opening with the command that runs it."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.words import nearest

DEFAULT = {False: "rules-demo", True: "guards-demo"}
"""What ``compare`` plays without a name; True: with ``--continual``."""


def shipped(*, continual: bool = False) -> dict[str, Path]:
    """Name -> file; with ``continual`` those that compare guards."""
    folder = Path(str(resources.files("llmchain_fl"))) / "comparisons"
    found = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    return {name: path for name, path in found.items() if not continual or head(path).get("continual")}


def head(path: Path) -> dict[str, Any]:
    """The file as it is, unchecked."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def find_comparison(name: str, *, continual: bool = False) -> Path:
    """A shipped name, the path of a TOML file, or nothing for the default.

    Raises:
        ConfigError: neither; the nearest name is given.
    """
    known = shipped()
    name = name or DEFAULT[continual]
    if name in known:
        return known[name]
    path = Path(name)
    if path.suffix == ".toml":
        return path
    raise ConfigError(
        [f"there is no comparison {name!r}{nearest(name, list(known))}"],
        remedy=f"choose one of {', '.join(shipped(continual=continual))}, or give the path of a .toml file",
    )
