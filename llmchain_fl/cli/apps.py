"""The one door from the command line to the apps.

``simulations`` (and through it ``server`` and ``client``) stand beside this package in a checkout and inside it, as
``llmchain_fl/_app``, in a wheel: a wheel never installs top-level modules with such common names (docs/adr/0001).
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import llmchain_fl


def app_root() -> Path:
    """The folder that holds ``server``, ``client`` and ``simulations``."""
    package = Path(llmchain_fl.__file__).parent
    inside = package / "_app"
    return inside if inside.is_dir() else package.parent


def tool(name: str) -> ModuleType:
    """The module ``name``, such as ``simulations.dummy``."""
    root = str(app_root())
    if root not in sys.path:
        sys.path.insert(0, root)
    return importlib.import_module(name)


def simulator() -> ModuleType:
    """The module ``simulations.run``."""
    return tool("simulations.run")
