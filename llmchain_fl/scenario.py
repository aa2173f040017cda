"""The shipped scenarios: named configurations, each opening with the command that runs it."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.words import nearest


def shipped() -> dict[str, Path]:
    """Name -> file."""
    folder = Path(str(resources.files("llmchain_fl"))) / "scenarios"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def titles() -> dict[str, str]:
    """Name -> what the scenario shows."""
    return {
        name: str(tomllib.loads(path.read_text(encoding="utf-8")).get("title", "")) for name, path in shipped().items()
    }


def find_scenario(name: str) -> Path:
    """A shipped name, or the path of a TOML file.

    Raises:
        ConfigError: neither; the nearest name is given.
    """
    known = shipped()
    if name in known:
        return known[name]
    path = Path(name)
    if path.suffix == ".toml":
        return path
    raise ConfigError(
        [f"there is no scenario {name!r}{nearest(name, list(known))}"],
        remedy=f"choose one of {', '.join(known)}, or give the path of a .toml file",
    )
