"""The folder that ``llmchain-fl provision`` writes, and each kit in it.

::

    DIR/authority/       ca.key, ca.crt: keep it off the coordinator's machine
    DIR/coordinator/     kit.toml, roster.json, ca.crt, server.crt, server.key, scenario.toml, ...
    DIR/sites/NAME/      kit.toml, site.toml, ca.crt, keys/, scenario.toml, systemd/, Containerfile, README.md
    DIR/revoked/         the kits of sites that were revoked

Written again, a kit keeps its keys; everything else in it is made anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmchain_fl import __version__
from llmchain_fl.config.write import table_to_toml, to_toml
from llmchain_fl.data.stages import public_labels, stage_labels
from llmchain_fl.onprem import kit, texts
from llmchain_fl.onprem.certificates import Signed, hosts_of, make_server, read_certificate
from llmchain_fl.onprem.federation import Federation, split
from llmchain_fl.onprem.files import own_folder, write_file
from llmchain_fl.onprem.keys import fingerprint
from llmchain_fl.onprem.roster import Roster
from llmchain_fl.onprem.site_file import site_tables, site_text


@dataclass(frozen=True)
class Tree:
    """The folders below ``root``."""

    root: Path

    @property
    def authority(self) -> Path:
        """Of the certificate authority."""
        return self.root / "authority"

    @property
    def coordinator(self) -> Path:
        """The coordinator's kit."""
        return self.root / "coordinator"

    @property
    def roster(self) -> Path:
        """The roster, in the coordinator's kit."""
        return self.coordinator / kit.ROSTER

    def site(self, name: str) -> Path:
        """The kit of a site."""
        return self.root / "sites" / name

    @property
    def sites(self) -> list[Path]:
        """The kits of all sites that are there."""
        return sorted((self.root / "sites").glob("*/"))


@dataclass(frozen=True)
class Facts:
    """What all kits of a federation say alike."""

    federation: Federation
    roster: Roster
    authority: Signed
    now: datetime
    code: str
    bundles: list[str]
    base_allowed: str
    base_digest: str

    @property
    def day(self) -> str:
        """The day on which they were made."""
        return self.now.date().isoformat()

    @property
    def common(self) -> dict[str, Any]:
        """Keys of ``kit.toml`` in both kinds of kits."""
        page = self.federation.page
        return {
            "federation": page.name,
            "coordinator": page.address,
            "made": self.day,
            "version": __version__,
            "flower": version("flwr"),
            "code": self.code,
            "bundles": self.bundles,
        }


def write_site(tree: Tree, facts: Facts, name: str) -> None:
    """The kit of one site; its keys are there already, or at the site."""
    folder, page, entry = own_folder(tree.site(name)), facts.federation.page, facts.roster.sites[name]
    config, names = facts.federation.config, fingerprint(facts.roster.identities())
    labels = public_labels(config)
    site_kit = kit.SiteKit(
        **facts.common,
        name=name,
        base=config.model.path,
        base_digest=facts.base_digest,
        node_key=entry.node_key,
        identity=entry.identity,
        fingerprint=names,
        labels=labels,
        stages={stage.name: stage_labels(stage, list(labels)) or [] for stage in config.stage},
    )
    tables = site_tables(facts.federation, name, facts.roster, facts.base_allowed, facts.bundles)
    ends = facts.authority.certificate.not_valid_after_utc.date().isoformat()
    readme = texts.site_readme(
        federation=page.name,
        name=name,
        made=facts.day,
        address=page.address,
        fingerprint=names,
        ends=ends,
        requested=entry.origin == "requested",
    )
    _write_common(folder, facts, name)
    write_file(folder / kit.KIT, table_to_toml(site_kit.model_dump()))
    write_file(folder / kit.SITE, site_text(facts.federation, tables, labels))
    write_file(folder / kit.README, readme)


def write_coordinator(tree: Tree, facts: Facts) -> None:
    """The kit of the coordinator: its certificate is made where there is none for all of its names."""
    folder, page = own_folder(tree.coordinator), facts.federation.page
    server = folder / kit.SERVER_CERTIFICATE
    if not server.exists() or set(hosts_of(read_certificate(server))) != set(facts.federation.hosts):
        write_server(folder, make_server(facts.authority, facts.federation.hosts, facts.now, page.days))
    ends = read_certificate(server).not_valid_after_utc.date().isoformat()
    names = list(facts.roster.sites)
    _write_common(folder, facts, "")
    listen, reach = facts.federation.listen, facts.federation.reach
    kit.write_flower(folder, page.name, reach)
    write_file(
        folder / kit.KIT, table_to_toml(kit.CoordinatorKit(**facts.common, listen=listen, reach=reach).model_dump())
    )
    fields = {"federation": page.name, "made": facts.day, "address": page.address, "ends": ends}
    write_file(folder / kit.README, texts.coordinator_readme(names=names, **fields))


def write_server(folder: Path, server: Signed) -> None:
    """The server's certificate and its key, in the place of those that were there."""
    write_file(folder / kit.SERVER_KEY, server.key_pem)
    write_file(folder / kit.SERVER_CERTIFICATE, server.pem)


def _write_common(folder: Path, facts: Facts, name: str) -> None:
    page = facts.federation.page
    file, unit = texts.unit(page.name, name)
    own_folder(folder / kit.SYSTEMD)
    write_file(folder / kit.SYSTEMD / file, unit)
    write_file(folder / kit.CONTAINER, texts.container(name, split(page.address)[1]))
    write_file(folder / kit.SWITCHES, texts.switches())
    write_file(folder / kit.AUTHORITY, facts.authority.pem)
    write_file(folder / kit.SCENARIO, to_toml(facts.federation.config))
