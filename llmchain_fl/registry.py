"""A table of names: this project's and those of installed packages, each loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.plugins import installed, load, named, names_of

T = TypeVar("T")


class Table(Mapping[str, T], Generic[T]):
    """Name -> what it declares.

    Args:
        group: of the entry points, without its prefix, such as ``rules``.
        built_in: name -> where it is, ``module:attribute``.
        kind: what every entry must be, or make without arguments; or where that is.

    =====================================  =================================================
    name                                   ``table[name]``
    =====================================  =================================================
    of this project                        that one, whatever other packages call theirs
    of an installed package                what its entry point names
    of none, or of a broken package        KeyError; ``get_or_refuse`` says why
    an entry of another kind or name       the same
    =====================================  =================================================
    """

    def __init__(self, group: str, built_in: Mapping[str, str], kind: type[T] | str) -> None:
        self._group, self._built_in, self._kind = group, dict(built_in), kind

    def __getitem__(self, name: str) -> T:
        if name not in self:
            raise KeyError(name)
        return self.get_or_refuse(name)

    def get_or_refuse(self, name: str) -> T:
        """What ``name`` stands for.

        Raises:
            ConfigError: nothing sound; see the class.
        """
        plugin = load(self._group, name, self._built_in)
        kind = cast("type[T]", named(self._kind)) if isinstance(self._kind, str) else self._kind
        if isinstance(plugin, type) and issubclass(plugin, kind):
            plugin = plugin()
        if not isinstance(plugin, kind) or getattr(plugin, "name", name) != name:
            raise ConfigError([f"the plug-in llmchain_fl.{self._group}: {name} is no {kind.__name__} of that name"])
        return plugin

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or name in installed(self._group)

    def __iter__(self) -> Iterator[str]:
        return iter(names_of(self._group, self._built_in))

    def __len__(self) -> int:
        return len(names_of(self._group, self._built_in))
