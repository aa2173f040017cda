"""``federation.toml``: the one page from which all kits are written.

::

    name = "lab"                           # of the federation
    address = "fl.example.org:8000"        # where sites reach the coordinator
    scenario = "scenario.toml"             # a shipped name or a file: stages, labels, base, rounds, budget
    days = 365                             # of the server's certificate

    [data]                                 # what follows is written into every site's file; it may be left out
    train = "records/{stage}.csv"
    columns = { text = "note", label = "department", person = "patient_id" }

    [limits]
    epsilon = 8.0

    [sites.north]                          # a site; its own tables go over those above
    [sites.south]
    data = { columns = { text = "bericht", label = "abteilung", person = "fall" } }

======================================================  =======================================================
in the file                                             outcome
======================================================  =======================================================
``limits``, ``secure`` left out                         as the scenario asks, and no more (``site_file.py``)
a key that no site file has                             a fault that names the nearest one
a site whose tables are no site file                    a fault that names the site
no site; a name that cannot be in a path                a fault
``address`` without a port, no name and no number       a fault
a scenario that is none, or cannot have so many sites   its own faults, each
several of these                                        one ConfigError with all of them
======================================================  =======================================================
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from llmchain_fl.config.read import apply_settings, build, walk_fields
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.section import NAME, Section
from llmchain_fl.core.toml_file import read_toml
from llmchain_fl.core.words import nearest, one_line
from llmchain_fl.scenario import find_scenario

Table = dict[str, Any]
TABLES = ("data", "limits", "secure", "compute")
"""Tables of a site file that this page may hold."""
LOOPBACK, EVERYWHERE = "127.0.0.1", ("0.0.0.0", "::")
NOTHING = "correct the lines above; nothing was written"
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*")


class Tables(Section):
    """What is written into a site's file, and not into another's."""

    data: Table = Field(default_factory=dict)
    limits: Table = Field(default_factory=dict)
    secure: Table = Field(default_factory=dict)
    compute: Table = Field(default_factory=dict)

    def over(self, below: Mapping[str, Table]) -> dict[str, Table]:
        """These tables laid over ``below``, key by key."""
        return {name: {**below.get(name, {}), **getattr(self, name)} for name in TABLES}


class Page(Tables):
    """The file as it is written."""

    name: Annotated[str, Field(pattern=NAME)]
    address: str
    also: list[str] = Field(default_factory=list)
    """More names and addresses of the coordinator, for its certificate."""
    listen: str = LOOPBACK
    """On which of its machine's addresses the coordinator listens: 127.0.0.1 behind a proxy; 0.0.0.0: on all."""
    days: Annotated[int, Field(ge=1, le=825)] = 365
    scenario: str
    settings: list[str] = Field(default_factory=list)
    """Changes to the scenario, as after ``--set``."""
    keys: Literal["made", "requested"] = "made"
    """``requested``: no private key is made here; each site sends a request."""
    bundles: list[Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]] = Field(default_factory=list)
    """Code that the sites approve; empty: that of this installation."""
    sites: dict[Annotated[str, Field(pattern=NAME)], Tables] = Field(min_length=1)


@dataclass(frozen=True)
class Federation:
    """A page without a fault, and the scenario that it names."""

    page: Page
    config: RunConfig
    folder: Path

    @property
    def hosts(self) -> list[str]:
        """Every name and address of the coordinator, for its certificate; the one that sites use first."""
        own = [self.reach.rpartition(":")[0].strip("[]"), "localhost", LOOPBACK]
        return list(dict.fromkeys([split(self.page.address)[0], *self.page.also, *own]))

    @property
    def reach(self) -> str:
        """HOST:PORT by which its own machine reaches the coordinator."""
        return _joined(LOOPBACK if self.page.listen in EVERYWHERE else self.page.listen, self.page.address)

    @property
    def listen(self) -> str:
        """HOST:PORT on which it listens."""
        return _joined(self.page.listen, self.page.address)


def read_federation(path: Path, site: type[Section]) -> Federation:
    """Read the page.

    Args:
        path: ``federation.toml``.
        site: the schema of a site file (``client.site.Site``; this room does not import the apps).

    Raises:
        ConfigError: every fault at once.
    """
    tree = read_toml(path, "federation file", remedy="write one; docs/on-premise.md shows it")
    try:
        page = Page.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError(faults_of(error, Page), remedy=NOTHING) from None
    faults = _address_faults(page) + _site_faults(page, site)
    config: RunConfig | None = None
    try:
        config = _scenario(page, path.parent)
    except ConfigError as error:
        faults += [f"scenario {page.scenario}: {line}" for line in error.faults]
    if faults or config is None:
        raise ConfigError(faults, remedy=NOTHING)
    return Federation(page, config, path.parent)


def split(address: str) -> tuple[str, int]:
    """``host:port``; brackets around an IPv6 address are left out. Port 0 where there is none."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port) if re.fullmatch(r"[0-9]{1,5}", port) else 0


def _joined(host: str, address: str) -> str:
    port = split(address)[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def faults_of(error: pydantic.ValidationError, section: type[Section]) -> list[str]:
    """One line for each fault: the key, what is wrong, and the nearest key where there is none of this name."""
    known = [key for key, _ in walk_fields(section) if not key.startswith("sites.")]
    lines = []
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in fault["loc"] if part != "[key]")
        if fault["type"] == "extra_forbidden":
            lines.append(one_line(f"{key} is no key{nearest(key, known)}"))
        else:
            lines.append(one_line(f"{key}: {str(fault['msg']).removeprefix('Value error, ')}"))
    return lines


def _address_faults(page: Page) -> list[str]:
    host, port = split(page.address)
    hosts = [("listen", page.listen), *(("also", name) for name in page.also)]
    if 0 < port < 65536:
        faults, hosts = [], [("address", host), *hosts]
    else:
        faults = [f'address = "{page.address}": write HOST:PORT, a port from 1 to 65535']
    return faults + [
        f'{key}: "{name}" is no name of a machine and no IP address' for key, name in hosts if not _is_host(name)
    ]


def _is_host(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return len(name) <= 253 and bool(_HOST.fullmatch(name)) and not re.fullmatch(r"[0-9.]+", name)
    return True


def _site_faults(page: Page, site: type[Section]) -> list[str]:
    """Faults of the tables for all sites once, then of each site's own."""
    needed = {"data": {"train": ""}}
    common = _faults_in(Tables.over(page, needed), site)
    faults = list(common)
    for name, own in page.sites.items():
        own_faults = _faults_in(own.over(Tables.over(page, needed)), site)
        faults += [f"sites.{name}.{line}" for line in own_faults if line not in common]
    return faults


def _faults_in(tables: Mapping[str, Table], site: type[Section]) -> list[str]:
    try:
        site.model_validate({"name": "a", **tables})
    except pydantic.ValidationError as error:
        return faults_of(error, site)
    return []


def _scenario(page: Page, folder: Path) -> RunConfig:
    """The scenario with as many sites as the page names; a file is looked for beside the page."""
    beside = folder / page.scenario
    file = (
        beside if beside.suffix == ".toml" and not Path(page.scenario).is_absolute() else find_scenario(page.scenario)
    )
    return build(apply_settings(read_toml(file, "scenario"), [f"sites.count={len(page.sites)}", *page.settings]))
