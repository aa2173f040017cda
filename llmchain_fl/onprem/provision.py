"""Kits made, renewed, revoked, issued again.

==============================================  =====================================================================
case                                            outcome
==============================================  =====================================================================
the first time                                  authority, roster, kits
again                                           keys stay; what the page says anew is written anew
a site more on the page                         a kit more; every site's list of peers has it
a site on the roster, no longer on the page     told; it stays until it is revoked
``keys = "requested"``, no request yet          told; no kit
a request                                       entered; this site's private keys are never here
a request of a name that is not on the page     ConfigError
a revoked name on the page                      told; ``reissue`` gives it new keys, and its ledger goes on
keys that a crash left without a line           entered as they are
==============================================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.words import nearest
from llmchain_fl.onprem import kit
from llmchain_fl.onprem.certificates import (
    AUTHORITY_DAYS,
    Signed,
    ending,
    hosts_of,
    make_authority,
    make_server,
    read_certificate,
    read_private,
    read_signed,
)
from llmchain_fl.onprem.code import bundle_digest, code_digest
from llmchain_fl.onprem.federation import LOOPBACK, NOTHING, Federation, split
from llmchain_fl.onprem.files import own_folder, write_file, write_key
from llmchain_fl.onprem.keys import NODE_KEY, Public, make_keys, read_keys
from llmchain_fl.onprem.kits import Facts, Tree, write_coordinator, write_server, write_site
from llmchain_fl.onprem.roster import Roster, read_roster, write_roster
from llmchain_fl.onprem.site_file import base_of, check_trust


@dataclass
class Told:
    """What whoever provisions should know."""

    written: list[str] = field(default_factory=list)
    """Sites whose kits were written."""
    notes: list[str] = field(default_factory=list)
    roster: Roster | None = None


def provision(federation: Federation, root: Path, app: Path, requests: Sequence[Public], now: datetime) -> Told:
    """See the table of the module.

    Args:
        federation: the page.
        root: the folder of the kits; made where there is none.
        app: the folder of the apps (``app_root``), whose code the sites approve.
        requests: what sites have sent.
        now: in UTC.

    Raises:
        ConfigError: see the table; or a page whose base or trust cannot be written into a site file.
    """
    strangers = [one.name for one in requests if one.name not in federation.page.sites]
    if strangers:
        hint = nearest(strangers[0], list(federation.page.sites))
        raise ConfigError([f"a request of {', '.join(strangers)}, who is not on the page{hint}"], remedy=NOTHING)
    check_trust(federation)
    allowed, base = base_of(federation.config)
    bundles = federation.page.bundles or [digest for digest in [bundle_digest(app)] if digest]
    tree, summary = Tree(own_folder(root)), Told()
    authority = _authority(tree, federation.page.name, now)
    own_folder(tree.coordinator)
    own_folder(tree.root / "sites")
    roster = _entered(tree, federation, requests, now, summary)
    write_roster(tree.roster, roster)
    summary.roster, summary.written = roster, [name for name in federation.page.sites if name in roster.sites]
    facts = Facts(federation, roster, authority, now, code_digest(app), bundles, allowed, base)
    for name in summary.written:
        write_site(tree, facts, name)
    write_coordinator(tree, facts)
    summary.notes += _notes(tree, federation, bundles, now)
    return summary


def _notes(tree: Tree, federation: Federation, bundles: Sequence[str], now: datetime) -> list[str]:
    """What the kits leave to whoever provisions."""
    host, notes = split(federation.page.address)[0], ending(tree.coordinator, now)
    if federation.page.listen == LOOPBACK and host not in (LOOPBACK, "localhost"):
        notes.append(
            f'it listens on {LOOPBACK} alone: let a proxy pass /v1/fleet/ on to it, or write listen = "0.0.0.0"'
        )
    if not bundles:
        notes.append("no bundle can be made of this installation: name those that sites approve (bundles = [...])")
    return notes


def _authority(tree: Tree, federation: str, now: datetime) -> Signed:
    """The authority that is there, else a new one; of a key that a crash left alone, its certificate."""
    key, certificate = own_folder(tree.authority) / "ca.key", tree.authority / kit.AUTHORITY
    if certificate.exists():
        return read_signed(key, certificate)
    made = make_authority(federation, now, key=read_private(key) if key.exists() else None)
    if not key.exists():
        write_key(key, made.key_pem)
    write_file(certificate, made.pem)
    return made


def _entered(tree: Tree, federation: Federation, requests: Sequence[Public], now: datetime, summary: Told) -> Roster:
    page, day = federation.page, now.date().isoformat()
    roster = read_roster(tree.roster) if tree.roster.exists() else Roster(federation=page.name)
    if roster.federation != page.name:
        raise ConfigError([f"{tree.root} holds the kits of the federation {roster.federation}"], remedy=NOTHING)
    revoked, sent = {past.name for past in roster.revoked}, {one.name: one for one in requests}
    for name in page.sites:
        if name in sent:
            roster = roster.enter(sent[name], "requested", day)
        elif name in roster.sites:
            continue
        elif name in revoked:
            summary.notes.append(f"{name} is revoked: llmchain-fl provision reissue {name} gives it new keys")
        elif page.keys == "requested":
            summary.notes.append(f"{name} has sent no request yet: llmchain-fl site request {name}, at the site")
        else:
            roster = roster.enter(_keys(tree.site(name), name), "made", day)
    left = [name for name in roster.sites if name not in page.sites]
    summary.notes += [f"{name} is no longer on the page: llmchain-fl provision revoke {name} ends it" for name in left]
    return roster


def _keys(folder: Path, name: str) -> Public:
    return read_keys(folder, name) if (folder / NODE_KEY).exists() else make_keys(own_folder(folder), name)


def renew(root: Path, now: datetime, days: int, authority: bool) -> list[Path]:
    """A new certificate for the server; ``authority``: for the authority too, with the key that it has.

    Keys and kits of sites stay as they are, but for ``ca.crt`` of a renewed authority.

    Returns:
        The files that were written.

    Raises:
        ConfigError: there are no kits, the authority's key is not here, or the certificate would outlive it.
    """
    tree = _there(root)
    signed = read_signed(tree.authority / "ca.key", tree.authority / kit.AUTHORITY)
    old, folders = read_certificate(tree.coordinator / kit.SERVER_CERTIFICATE), list[Path]()
    if authority:
        signed = make_authority(read_roster(tree.roster).federation, now, AUTHORITY_DAYS, signed.key)
        folders = [tree.authority, tree.coordinator, *tree.sites]
    server = make_server(signed, hosts_of(old), now, days)
    for folder in folders:
        write_file(folder / kit.AUTHORITY, signed.pem)
    write_server(tree.coordinator, server)
    names = [tree.coordinator / kit.SERVER_KEY, tree.coordinator / kit.SERVER_CERTIFICATE]
    return [*(folder / kit.AUTHORITY for folder in folders), *names]


def revoke(root: Path, name: str, now: datetime) -> Path | None:
    """Take a site off the roster; its kit moves to ``revoked/``.

    Returns:
        Where its kit is now; None where there was none.

    Raises:
        ConfigError: no site of this name.
    """
    tree, day = _there(root), now.date().isoformat()
    write_roster(tree.roster, read_roster(tree.roster).revoke(name, day))
    return _set_aside(tree, name, day)


def _set_aside(tree: Tree, name: str, day: str) -> Path | None:
    if not tree.site(name).is_dir():
        return None
    past = own_folder(tree.root / "revoked")
    place, number = past / f"{name}.{day}", 1
    while place.exists():
        place, number = past / f"{name}.{day}.{number}", number + 1
    tree.site(name).rename(place)
    return place


def reissue(federation: Federation, root: Path, app: Path, name: str, request: Public | None, now: datetime) -> Told:
    """New keys for a site, by its request or made here; those that it had are revoked.

    Raises:
        ConfigError: the name is not on the page, the request is another site's, or ``provision`` would refuse.
    """
    tree, page, day = _there(root), federation.page, now.date().isoformat()
    if name not in page.sites:
        raise ConfigError([f"{name} is not on the page{nearest(name, list(page.sites))}"], remedy=NOTHING)
    if request is not None and request.name != name:
        raise ConfigError([f"the request is of {request.name}, not of {name}"], remedy=NOTHING)
    if request is None and page.keys == "requested":
        raise ConfigError([f"the keys of {name} are made by the site"], remedy="give its new request: --request FILE")
    check_trust(federation)
    base_of(federation.config)
    roster = read_roster(tree.roster)
    roster = roster.revoke(name, day) if name in roster.sites else roster
    if request is not None:
        roster = roster.enter(request, "requested", day)
    _set_aside(tree, name, day)
    if request is None:
        roster = roster.enter(make_keys(own_folder(tree.site(name)), name), "made", day)
    write_roster(tree.roster, roster)
    return provision(federation, root, app, [], now)


def _there(root: Path) -> Tree:
    tree = Tree(root)
    if not tree.roster.exists():
        raise ConfigError([f"there are no kits in {root}"], remedy="llmchain-fl provision federation.toml makes them")
    return tree
