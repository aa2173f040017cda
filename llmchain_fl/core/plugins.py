"""Names that stand for code: in a table of this project, or in a package that somebody else installed.

::

    [project.entry-points."llmchain_fl.rules"]          # pyproject.toml of a package beside this one
    halved = "scratch.halved:RULE"

===================  ==========================================================================
group                an entry
===================  ==========================================================================
llmchain_fl.rules    an aggregation rule (``llmchain_fl.aggregation.rule.Rule``)
llmchain_fl.robust   a robust step, as its class (``llmchain_fl.robust.protocol.Robust``)
llmchain_fl.guards   a guard against forgetting (``llmchain_fl.guards.guard.Guard``)
llmchain_fl.tasks    a task (``llmchain_fl.core.tasks.kind.TaskKind``)
llmchain_fl.readers  a reader of files, its name their suffix (``llmchain_fl.core.data.readers.Reader``)
llmchain_fl.sources  records by name, ``NAME:rest`` (``llmchain_fl.core.data.source``)
llmchain_fl.bases    a base model by name: a function that gives its folder
===================  ==========================================================================

A name of this project cannot be taken by another package. What a site loads is its own decision: its file names the
plug-ins that it allows (``limits.plugins``), as ``GROUP:NAME``; there is none by default.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.words import nearest

PREFIX = "llmchain_fl."
T = TypeVar("T")


class Named(Mapping[str, T], Generic[T]):
    """A table of this project: name -> ``module:attribute``, imported when somebody asks for the value."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def __getitem__(self, name: str) -> T:
        return cast("T", named(self._places[name]))

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def installed(group: str) -> dict[str, EntryPoint]:
    """Name -> entry of every installed package, ``group`` without its prefix (such as "rules")."""
    return {entry.name: entry for entry in entry_points(group=PREFIX + group)}


def names_of(group: str, built_in: Mapping[str, object]) -> list[str]:
    """Every name that can be chosen: this project's first, others' after them."""
    return [*built_in, *sorted(name for name in installed(group) if name not in built_in)]


def load(group: str, name: str, built_in: Mapping[str, object], allowed: Collection[str] | None = None) -> object:
    """What ``name`` stands for. A text in ``built_in``, ``module:attribute``, is imported now.

    ===========================================  ==============================================
    name                                         result
    ===========================================  ==============================================
    in ``built_in``                              that value, whatever other packages call theirs
    of one other package                         what its entry names
    ... and ``GROUP:NAME`` not in ``allowed``    ConfigError, and nothing of it is imported
    of none                                      ConfigError with the nearest known name
    of a package that cannot be imported         ConfigError with the entry
    ===========================================  ==============================================

    Raises:
        ConfigError: see above.
    """
    if name in built_in:
        value = built_in[name]
        return named(value) if isinstance(value, str) else value
    others = installed(group)
    if name not in others:
        raise ConfigError([f'there is no {group.removesuffix("s")} "{name}"{nearest(name, names_of(group, built_in))}'])
    if allowed is not None and f"{group}:{name}" not in allowed:
        raise ConfigError([f'the plug-in {group}:{name} is not allowed here: limits.plugins = ["{group}:{name}"]'])
    try:
        return others[name].load()
    except Exception as error:  # whatever somebody else's package does on import
        plugin = f"{PREFIX}{group}: {name} = {others[name].value}"
        raise ConfigError([f"the plug-in {plugin} cannot be loaded ({type(error).__name__})"]) from error


def named(place: str) -> object:
    """``module:attribute`` -> the value there."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
