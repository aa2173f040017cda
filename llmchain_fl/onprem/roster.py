"""Which sites belong to a federation, by which keys: one JSON file at the coordinator, and the truth.

Flower's own list is none: names are not unique there, a SuperLink with its state in memory forgets every key, and a
key once unregistered can never be registered again. So a name stands here once, a key once for ever (also among the
revoked), and every start registers what stands here.

================================================  =================================================
change                                            outcome
================================================  =================================================
``enter`` a new name                              a site
``enter`` a name with the keys that it has        the same roster
``enter`` a name that has other keys              ConfigError: revoke it first
``enter`` keys of another site, or revoked ones   ConfigError: new keys
``revoke`` a site                                 no site; its keys stay among the revoked
``revoke`` a name that is none                    ConfigError, with the nearest name
================================================  =================================================
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.section import NAME, Section
from llmchain_fl.core.words import nearest
from llmchain_fl.onprem.files import write_file
from llmchain_fl.onprem.keys import Public

Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Origin = Literal["made", "requested"]


class Entry(Section):
    """A site that may connect."""

    node_key: str
    identity: str
    origin: Origin
    """Whether the keys were made where the kits were, or by the site."""
    since: Day


class Revoked(Section):
    """A site's keys that may not connect any more."""

    name: str
    node_key: str
    identity: str
    since: Day
    until: Day


class Roster(Section):
    """All of a federation."""

    format: Literal[1] = 1
    federation: Annotated[str, Field(pattern=NAME)]
    sites: dict[Annotated[str, Field(pattern=NAME)], Entry] = Field(default_factory=dict)
    revoked: list[Revoked] = Field(default_factory=list)

    def enter(self, public: Public, origin: Origin, day: str) -> Roster:
        """See the table of the module.

        Raises:
            ConfigError: see there.
        """
        known = self.sites.get(public.name)
        if known is not None:
            if (known.node_key, known.identity) == (public.node_key, public.identity):
                return self
            raise ConfigError(
                [f"the site {public.name} has other keys on the roster"],
                remedy=f"revoke them first: llmchain-fl provision revoke {public.name}; its name and its ledger stay",
            )
        if {public.node_key, public.identity} & self.keys():
            raise ConfigError(
                [f"the keys of {public.name} are on the roster already, of another site or revoked"],
                remedy="a key is used once: have the site make new ones (llmchain-fl site request, in a new folder)",
            )
        entry = Entry(node_key=public.node_key, identity=public.identity, origin=origin, since=day)
        return self.model_copy(update={"sites": {**self.sites, public.name: entry}})

    def revoke(self, name: str, day: str) -> Roster:
        """See the table of the module.

        Raises:
            ConfigError: no site of this name.
        """
        entry = self.sites.get(name)
        if entry is None:
            gone = any(past.name == name for past in self.revoked)
            known = "it is revoked already" if gone else f"there is none{nearest(name, list(self.sites))}"
            raise ConfigError([f"the site {name}: {known}"], remedy="name a site of the roster")
        past = Revoked(name=name, node_key=entry.node_key, identity=entry.identity, since=entry.since, until=day)
        rest = {other: keys for other, keys in self.sites.items() if other != name}
        return self.model_copy(update={"sites": rest, "revoked": [*self.revoked, past]})

    def keys(self) -> set[str]:
        """Every key that was ever entered."""
        return set(self.every_key())

    def every_key(self) -> list[str]:
        """The same, as often as each stands here."""
        now = [key for one in self.sites.values() for key in (one.node_key, one.identity)]
        return now + [key for one in self.revoked for key in (one.node_key, one.identity)]

    def identities(self) -> dict[str, str]:
        """Name -> identity, by name."""
        return {name: self.sites[name].identity for name in sorted(self.sites)}


def read_roster(path: Path) -> Roster:
    """The roster in a file.

    Raises:
        ConfigError: gone, damaged, or a key stands in it twice.
    """
    try:
        roster = Roster.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            [f"there is no roster {path}"], remedy="llmchain-fl provision federation.toml makes it"
        ) from None
    except (OSError, pydantic.ValidationError):
        raise ConfigError([f"the roster {path} cannot be read"], remedy="put it back from a backup") from None
    keys = roster.every_key()
    if len(set(keys)) < len(keys):
        raise ConfigError([f"a key stands twice in the roster {path}"], remedy="put it back from a backup")
    return roster


def write_roster(path: Path, roster: Roster) -> None:
    """Replace the roster as a whole."""
    write_file(path, json.dumps(roster.model_dump(), indent=1) + "\n")
