"""Which files run at a site, which at the server: the closure of an app under imports, read from the source.

Nothing is imported: a module's imports are read from its syntax tree, wherever they stand in it, in functions too. A
text ``module:attribute`` in a table is code that is loaded when somebody chooses its name (``core/plugins.py``): at a
site a module of ``core/`` that a task names (a guard, a codec, a kind of task) or the suffix of the site's own file;
at the server, whose configuration chooses, every one. Such files are marked ``by_name``. Anything else a site loads
only if the data holder's own file names it.

======================================  ==========================================================
in a module                             its closure holds
======================================  ==========================================================
``import a.b``, ``from a import b``     a, a.b (where they are the project's)
an import within a function             the same
an import for type checkers only        nothing
"a.b:c" in a table                      a.b, by name, where it may be chosen there
another package                         nothing
======================================  ==========================================================
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import llmchain_fl

SITE, SERVER = "client.app", "server.app"
BY_A_TASK = ("client.", "llmchain_fl.core.")
PACKAGE = Path(llmchain_fl.__file__).parent
ROOMS = ("client", "llmchain_fl", "server", "simulations")
_CHOSEN = re.compile(r"((?:" + "|".join(ROOMS) + r")(?:\.\w+)+):\w+")


@dataclass(frozen=True)
class Part:
    """One file: its path under the root, its lines, the SHA-256 of its bytes, and whether only a name brings it in."""

    path: str
    lines: int
    sha256: str
    by_name: bool


def parts(root: Path, app: str) -> list[Part]:
    """The files of ``app`` and of all it imports, by path."""
    always = _closure(root, app, ())
    whole = _closure(root, app, BY_A_TASK if app == SITE else ROOMS)
    return sorted((_part(root, file, file not in always) for file in whole), key=lambda part: part.path)


def _closure(root: Path, app: str, chosen: tuple[str, ...]) -> set[Path]:
    files: set[Path] = set()
    open_ends = [app]
    while open_ends:
        file = _file(root, open_ends.pop())
        if file is None or file in files:
            continue
        files.add(file)
        open_ends += _imports(file.read_text(encoding="utf-8"), chosen)
    return files


def _home(root: Path, room: str) -> Path:
    """The folder of a room: in a wheel the apps are in a folder of the package, and the package is not in theirs."""
    return PACKAGE.parent if room == PACKAGE.name and not (root / room).is_dir() else root


def _part(root: Path, file: Path, by_name: bool) -> Part:
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    home = root if file.is_relative_to(root) else PACKAGE.parent
    return Part(file.relative_to(home).as_posix(), data.count(b"\n"), digest, by_name)


def _file(root: Path, module: str) -> Path | None:
    room, *rest = module.split(".")
    place = _home(root, room).joinpath(room, *rest)
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)


def _imports(source: str, chosen: tuple[str, ...]) -> Iterator[str]:
    """Every module that may be meant, with the packages around it."""
    for node in _without_type_checking(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [match[1] for match in [_CHOSEN.fullmatch(node.value)] if match and match[1].startswith(chosen)]
        for name in names:
            steps = name.split(".")
            if steps[0] in ROOMS:
                yield from (".".join(steps[: n + 1]) for n in range(len(steps)))


def _without_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _without_type_checking(node)
