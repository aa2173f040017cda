"""``llmchain-fl privacy ledger``: what sites have spent, verified, as a page of text or as JSON."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmchain_fl.cli.apps import app_root
from llmchain_fl.cli.privacy_counted import counted_in_words, noise_of
from llmchain_fl.core.errors import ConfigError, PrivacyError
from llmchain_fl.core.printable import printable
from llmchain_fl.core.privacy.events import UNSAMPLED
from llmchain_fl.report import wording
from llmchain_fl.report.noised import COUNTED

if TYPE_CHECKING:
    from llmchain_fl.privacy.reading import Reading

ACCOUNTANT = "pld"
"""By which sites enforce their limit."""


class Limits(Protocol):
    """What of a site's limits is read here."""

    @property
    def epsilon(self) -> float: ...
    @property
    def delta(self) -> float: ...


class Secure(Protocol):
    """What of a site's policy of secure sums is read here."""

    @property
    def peers(self) -> dict[str, str]: ...
    @property
    def counted_peers(self) -> int: ...


class Site(Protocol):
    """What of ``client.site.Site`` is read here."""

    @property
    def name(self) -> str: ...
    @property
    def ledger_folder(self) -> Path: ...
    @property
    def anchor_file(self) -> Path: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def secure(self) -> Secure: ...


def app_module(name: str) -> ModuleType:
    """A module of the apps, which are no part of this package (``apps.py``)."""
    root = str(app_root())
    if root not in sys.path:
        sys.path.insert(0, root)
    return importlib.import_module(name)


def show_ledgers(path: Path, as_json: bool, renew_anchor: bool) -> None:
    """Print the ledger of one site, or of every site of a simulated run.

    Raises:
        ConfigError: nothing there that has a ledger, or ``renew_anchor`` for a whole run.
        PrivacyError: a ledger cannot be trusted; the site is named.
    """
    sites = find_sites(path)
    if renew_anchor:
        _renew(sites)
    readings = [(site, read(site)) for site in sites]
    if as_json:
        typer.echo(json.dumps([as_dict(site, reading) for site, reading in readings], indent=1, allow_nan=False))
        return
    console = Console()
    for site, reading in readings:
        show(console, site, reading)


def find_sites(path: Path) -> list[Site]:
    """The site of a site file (or of the folder it is in), or all sites of a simulated run.

    Raises:
        ConfigError: neither is there.
    """
    read_site = app_module("client.site").read_site
    if path.is_file() or path.suffix == ".toml":
        return [read_site(path)]
    if (path / "site.toml").is_file():
        return [read_site(path / "site.toml")]
    files = sorted(path.glob("sites/*/site.toml"))
    if not files:
        raise ConfigError(
            [f"{path} is no site file, and no run directory with sites in it"],
            remedy="give a site.toml, or the directory that `llmchain-fl simulate` has printed",
        )
    return [read_site(file) for file in files]


def read(site: Site) -> Reading | None:
    """The verified ledger of a site; None where nothing was spent yet.

    Raises:
        PrivacyError: it cannot be trusted; names the site.
    """
    from llmchain_fl.privacy.reading import read_ledger

    try:
        return read_ledger(
            site.ledger_folder,
            site.anchor_file,
            site=site.name,
            delta=site.limits.delta,
            accountant=ACCOUNTANT,
            epsilon_limit=site.limits.epsilon,
        )
    except PrivacyError as error:
        raise PrivacyError(f"site {site.name}: {error.what}", remedy=error.remedy) from error


def _renew(sites: list[Site]) -> None:
    from llmchain_fl.core.privacy.release import Terms
    from llmchain_fl.core.privacy.store import unit_of
    from llmchain_fl.privacy.anchor_renewal import AnchorRenewal

    if len(sites) != 1:
        raise ConfigError(["--renew-anchor is for one site: give its site.toml"], remedy="nothing was changed")
    (site,) = sites
    if not site.ledger_folder.is_dir():
        raise PrivacyError(
            f"site {site.name}: there is no ledger in {site.ledger_folder}", remedy="put back the latest state folder"
        )
    limits = site.limits
    terms = Terms(site.name, unit_of(site.ledger_folder), limits.delta, ACCOUNTANT, limits.epsilon)
    AnchorRenewal(site.ledger_folder, site.anchor_file, terms).renew()


def as_dict(site: Site, reading: Reading | None) -> dict[str, Any]:
    """One site's reading as plain values; an epsilon without a bound is null."""
    if reading is None:
        return {"site": site.name, "ledger": None}
    terms = reading.terms
    return {
        "site": site.name,
        "ledger": str(site.ledger_folder),
        "unit": terms.unit,
        "delta": terms.delta,
        "accountant": terms.accountant,
        "noise": noise_of(reading),
        "counted_peers": site.secure.counted_peers if site.secure.peers else None,
        "epsilon": _finite(reading.spent.epsilon),
        "epsilon_limit": _finite(terms.epsilon_limit),
        "epsilon_left": _finite(reading.left),
        "profiles": {name: _finite(total) for name, total in reading.profiles()},
        "length": reading.length,
        "head": reading.head,
        "anchored": True,
        "anchor": str(reading.anchor),
        "anchor_renewed": list(reading.renewed),
        "releases": [{"time": line.time, "state": line.state, **line.release.to_dict()} for line in reading.lines],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def show(console: Console, site: Site, reading: Reading | None) -> None:
    """Print one ledger; every name in it comes out printable, whoever chose it."""

    def say(text: str) -> None:
        console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    if reading is None:
        say(f"{site.name}: no ledger yet in {site.ledger_folder}; nothing was spent.")
        say("")
        return
    say(f"{site.name}: ledger verified, {wording.count(reading.length, 'line')}")
    for text in release_lines(reading):
        say(f"  {text}")
    console.print(_totals(reading))
    if site.secure.peers or noise_of(reading) == COUNTED:
        say(f"  counts    {counted_in_words(site.secure.counted_peers)}")
    say(f"  head      {reading.head}")
    say(f"  anchored  yes, at this head: {reading.anchor}")
    for time in reading.renewed:
        say(f"  ! the data holder made a new anchor at {time}: before that, a rollback may have gone unnoticed")
    say("")


def release_lines(reading: Reading) -> list[str]:
    """One line for each release and charge, in columns; not cut, however narrow the terminal is."""
    rows = [("time (UTC)", "federation", "run", "round", "stage", "purpose", "group", "mechanism", "state")]
    for line in reading.lines:
        release = line.release
        run, _, round = release.key.partition("/")
        who = (line.time, release.federation or "-", run[:8], round.partition("/")[0], release.stage, release.purpose)
        rows += [(*who, charge.group, mechanism(charge.event), line.state) for charge in release.charges]
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def mechanism(event: Any) -> str:
    """An event in a few signs: Gaussian, z, q where units were sampled, steps."""
    sampled = "" if event.kind in UNSAMPLED else f" q={event.sampling_rate:g}"
    return f"Gaussian z={event.noise_multiplier:.4g}{sampled} x{event.steps}"


def _totals(reading: Reading) -> Table:
    terms, table = reading.terms, Table(show_header=False, box=None, padding=(0, 2))
    for name, total in reading.profiles():
        table.add_row(Text(printable(name)), f"epsilon {wording.epsilon_text(total)}")
    limit = wording.epsilon_text(terms.epsilon_limit)
    left = "none" if reading.left == 0 else f"{math.floor(100 * reading.left) / 100:.2f}"
    spent = f"epsilon {wording.epsilon_text(reading.spent.epsilon)} of {limit}, left {left}"
    table.add_row(
        "total", f"{spent} ({wording.guarantee(terms.delta, terms.unit, terms.accountant, noise_of(reading))})"
    )
    return table
