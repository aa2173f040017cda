"""Rules, guards and tasks given as objects: plug-ins for as long as a run lasts.

An object is offered as an installed package would offer it: by an entry point (``core/plugins.py``), of a distribution
that exists in this process until the ``with`` block ends. Configuration, server, sites and report find it in the one
way there is, and nothing is left in any table afterwards.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import Distribution, DistributionFinder
from os import PathLike
from pathlib import Path
from types import ModuleType

from llmchain_fl.core.plugins import PREFIX

Parts = Mapping[str, Mapping[str, object]]
"""Group (``rules``, ``guards``, ``tasks``, ...) -> name -> object."""


class _Offered(Distribution):
    """A distribution of entry points, and of nothing else."""

    def __init__(self, name: str, entries: str) -> None:
        self._texts = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n", "entry_points.txt": entries}

    def read_text(self, filename: str) -> str | None:
        """The two files that it has."""
        return self._texts.get(filename)

    def locate_file(self, path: str | PathLike[str]) -> Path:
        """Nowhere."""
        return Path(path)


class _Finder(DistributionFinder):
    """Finds that distribution, and no module."""

    def __init__(self, offered: _Offered) -> None:
        self._offered = offered

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """None: modules are found by others."""
        return

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> Iterator[Distribution]:
        """It, unless another one is asked for by name."""
        if context is None or context.name in (None, self._offered.name):
            yield self._offered


@contextmanager
def offered(parts: Parts) -> Iterator[None]:
    """Let ``parts`` be found by their names inside the block."""
    if not any(parts.values()):
        yield
        return
    name = f"llmchain_fl_own_{uuid.uuid4().hex}"
    module, lines = ModuleType(name), []
    for group, objects in parts.items():
        lines.append(f"[{PREFIX}{group}]")
        for number, (key, value) in enumerate(objects.items()):
            setattr(module, f"{group}_{number}", value)
            lines.append(f"{key} = {name}:{group}_{number}")
    finder = _Finder(_Offered(name, "\n".join(lines) + "\n"))
    sys.modules[name] = module
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        del sys.modules[name]
