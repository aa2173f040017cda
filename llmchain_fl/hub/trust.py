"""The hub's home on this machine: an own key, the publishers that are trusted, and what was seen of each.

::

    HOME/identity.key       Ed25519, private half, for its owner alone; made by `hub keys new`
    HOME/publishers.json    name -> public key, as somebody has entered them (`hub keys trust`)
    HOME/seen.json          public key -> highest serial, hash of that index, revocations, newest version of each name

What was seen is what makes an old index useless to whoever shows it again; it only grows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmchain_fl.core.errors import ConfigError, SecureSumError
from llmchain_fl.core.privacy.durable import locked, make_folder, replace
from llmchain_fl.core.secure.identity import Identity, make_identity, read_identity
from llmchain_fl.hub.layout import MIB, is_name
from llmchain_fl.hub.refused import refuse
from llmchain_fl.hub.signing import is_public
from llmchain_fl.hub.strict_json import parse_object

KEY, PUBLISHERS, SEEN = "identity.key", "publishers.json", "seen.json"


@dataclass(frozen=True)
class Seen:
    """What was seen of one publisher. ``versions``: name -> newest version; ``revoked``: address -> reason."""

    serial: int = 0
    index: str = ""
    versions: Mapping[str, int] = field(default_factory=dict)
    revoked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trust:
    """Whom this machine trusts. ``publishers``: name -> public key; ``seen``: public key -> what was seen of it."""

    publishers: Mapping[str, str]
    seen: Mapping[str, Seen] = field(default_factory=dict)

    def name_of(self, public: str) -> str:
        """Under which name a key is trusted.

        Raises:
            HubError: publisher: under none.
        """
        for name, key in self.publishers.items():
            if key == public:
                return name
        raise refuse("publisher", f"the key {public[:24]}... is not trusted here")

    def seen_of(self, public: str) -> Seen:
        """What was seen of a key."""
        return self.seen.get(public, Seen())


def read_trust(home: Path) -> Trust:
    """What stands in ``home``; nobody is trusted where nothing does.

    Raises:
        HubError: form: a file of it is damaged.
    """
    publishers = _tree(home / PUBLISHERS)
    if not all(is_name(name) and is_public(key) for name, key in publishers.items()):
        raise refuse("form", f"{home / PUBLISHERS} is damaged")
    seen = {key: _seen(entry, home) for key, entry in _tree(home / SEEN).items()}
    return Trust(publishers, seen)


def _seen(entry: object, home: Path) -> Seen:
    try:
        seen = Seen(**entry)  # type: ignore[arg-type]
        sound = type(seen.serial) is int and isinstance(seen.index, str)
        sound = sound and all(type(number) is int for number in seen.versions.values())
        sound = sound and all(isinstance(reason, str) for reason in seen.revoked.values())
    except (TypeError, AttributeError):
        sound = False
    if not sound:
        raise refuse("form", f"{home / SEEN} is damaged: what was seen of publishers is lost")
    return seen


def own_identity(home: Path, *, make: bool = False) -> Identity:
    """The key of this machine; ``make``: made where there is none.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    try:
        if make:
            make_folder(home.absolute())
            return make_identity(home / KEY)
        return read_identity(home / KEY)
    except SecureSumError:
        state = "damaged" if (home / KEY).exists() else "not there"
    raise ConfigError([f"the key {home / KEY} is {state}"], remedy="make one: llmchain-fl hub keys new")


def trust_publisher(home: Path, name: str, public: str) -> None:
    """Enter a publisher; a name keeps its key until it is taken out.

    Raises:
        ConfigError: no name, no key, or the name has another key.
    """
    if not is_name(name) or not is_public(public):
        remedy = "NAME: lower-case letters, digits, . _ -; KEY: ed25519: and 64 hexadecimal digits"
        raise ConfigError([f"{name!r} with {public!r} is no publisher with its key"], remedy=remedy)
    make_folder(home.absolute())
    with locked(home / ".lock"):
        held = dict(read_trust(home).publishers)
        if held.get(name, public) != public:
            message = f"{name} is trusted with another key"
            raise ConfigError([message], remedy=f"if it has changed: llmchain-fl hub keys distrust {name}, then again")
        _write(home / PUBLISHERS, {**held, name: public})


def distrust_publisher(home: Path, name: str) -> None:
    """Take a publisher out; what was seen of it stays.

    Raises:
        ConfigError: there is none of this name.
    """
    held = dict(read_trust(home).publishers)
    if name not in held:
        raise ConfigError([f"no publisher {name!r} is trusted"], remedy="see `llmchain-fl hub keys list`")
    with locked(home / ".lock"):
        _write(home / PUBLISHERS, {key: value for key, value in held.items() if key != name})


def remember(home: Path, public: str, now: Seen) -> None:
    """What was seen of a publisher from here on: serials and versions only rise, revocations only grow."""
    make_folder(home.absolute())
    with locked(home / ".lock"):
        seen = dict(read_trust(home).seen)
        old = seen.get(public, Seen())
        names = {*old.versions, *now.versions}
        newest = {name: max(old.versions.get(name, 0), now.versions.get(name, 0)) for name in names}
        last = now if now.serial >= old.serial else old
        seen[public] = Seen(last.serial, last.index, newest, {**old.revoked, **now.revoked})
        _write(home / SEEN, {key: vars(value) for key, value in seen.items()})


def _tree(file: Path) -> dict[str, str]:
    return parse_object(file.read_bytes(), str(file), 16 * MIB) if file.exists() else {}


def _write(file: Path, tree: Mapping[str, object]) -> None:
    replace(file, (json.dumps(tree, indent=1, sort_keys=True) + "\n").encode())
