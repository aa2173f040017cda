"""Deals records out: writes one folder a site, exactly what a real site has: its records and its site file.

``RUN/sites/site-00/{cards.jsonl, cards.held_out.jsonl, site.toml, state/}``. Every backend reads the same folders, so
the three ways of running differ in nothing but the transport.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, overload

from client.site import Site, SiteCompute, SiteData, SiteLimits, SiteSecure
from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.config.calendar import unknown_sites
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.stage_task import kinds_of
from llmchain_fl.config.write import table_to_toml
from llmchain_fl.core.errors import ConfigError, DataError
from llmchain_fl.core.guards import SITE_GUARDS
from llmchain_fl.core.messages import MAX_BYTES
from llmchain_fl.core.secure.identity import make_identity, read_identity
from llmchain_fl.core.tasks.kind import TASKS
from llmchain_fl.core.tasks.spec import MOST_LABELS
from llmchain_fl.data.stages import check_stages, public_labels
from simulations.dealing import Dealt, deal, site_names
from simulations.streams import Share, shaped

DONE = "dealt.json"
ANY = "ANY.SITE.OF.ALL"
"""Stands for a site's name in what is made once for all of them."""
MOST_TRAINED = 10**12
"""How many numbers an adapter has is known once its base is loaded; a simulation is limited by memory alone."""


def dealt_in(folder: Path) -> Dealt | None:
    """What has been dealt out in ``folder``; None: nothing, or not all of it."""
    file = folder / DONE
    record = json.loads(file.read_bytes()) if file.is_file() else None
    return Dealt(**record) if isinstance(record, dict) else None


class Sites(Sequence[Site]):
    """The simulated sites of a run, each made when it is asked for: they differ in their names alone."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.names = site_names(config)
        self._any, self._file = simulated_site(config, folder, ANY), site_file(config, folder, ANY)

    def of(self, name: str) -> Site:
        """The site of this name."""

        def named(path: str) -> str:
            return path.replace(ANY, name)

        site, data, secure = self._any, self._any.data, self._any.secure
        moved = {
            "state": named(site.state),
            "data": data.model_copy(update={"train": named(data.train), "held_out": named(data.held_out)}),
            "secure": secure.model_copy(update={"identity": named(secure.identity)}),
        }
        return site.model_copy(update={"name": name, **moved}).written_as(self.file(name))

    def file(self, name: str) -> bytes:
        """The same as a file."""
        return self._file.replace(ANY.encode(), name.encode())

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, place: int) -> Site: ...

    @overload
    def __getitem__(self, place: slice) -> list[Site]: ...

    def __getitem__(self, place: int | slice) -> Site | list[Site]:
        return self.of(self.names[place]) if isinstance(place, int) else [self.of(name) for name in self.names[place]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def prepare_sites(config: RunConfig, folder: Path) -> Sites:
    """The simulated sites of a run. Each stage is dealt once; what an extension adds is dealt to the same sites.

    Raises:
        ConfigError: a stream that does not fit the label list, or an arrival of a site that is not there.
        DataError: not readable, a site is left without a record in some stage that it is sent to, or sites that are
            there already would have other names.
    """
    names, done = site_names(config), dealt_in(folder)
    make_identities(config, folder)
    stages = [stage.name for stage in config.stage]
    if done is None or not (set(stages) <= set(done.stages) and set(names) <= set(done.sites)):
        labels = list(public_labels(config))
        check_stages(config, labels)
        strangers = unknown_sites(config, names)
        if strangers:
            raise ConfigError(strangers)
        done = done or Dealt([], [], {})
        _check_names(names, done)
        shares, groups = deal(config, labels, names, done)
        for name, own in shares.items():
            for stage, share in shaped(config, name, own).items():
                _write_share(folder / name, stage, share)
        write_site_files(config, folder)
        atomic_write(folder / DONE, json.dumps(asdict(Dealt(names, stages, groups))).encode())
    return Sites(config, folder)


def _check_names(names: list[str], done: Dealt) -> None:
    if not set(done.sites) <= set(names):
        gone = sorted(set(done.sites) - set(names))
        raise DataError(
            f"with sites.count = {len(names)} there would be no {', '.join(gone)}",
            remedy="add fewer sites: the names of those that are there must stay",
        )


def _write_share(folder: Path, stage: str, share: Share) -> None:
    """One site's records of one stage; no file where there are none."""
    for file, rows in {f"{stage}.jsonl": share.train, f"{stage}.held_out.jsonl": share.held_out}.items():
        if rows:
            atomic_write(folder / file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def simulated_site(config: RunConfig, folder: Path, name: str) -> Site:
    """The site file of a simulated site, as a value."""
    privacy, home = config.privacy, folder / name
    scores: Literal["none", "noised", "exact"] = "exact"
    if privacy.enabled or not config.sites.held_out:
        named = privacy.unit == "person" and not config.data.one_record_per_person
        scores = "noised" if config.sites.held_out and named else "none"
    limits = SiteLimits(
        require_privacy=privacy.enabled,
        units=[privacy.unit],
        epsilon=privacy.epsilon or 1e6,
        delta=privacy.delta,
        scores=scores,
        hub=True,
        plugins=_plugins(config),
    ).model_copy(update=_caps(config))
    data = SiteData(
        train=str(home / "{stage}.jsonl"),
        held_out=str(home / "{stage}.held_out.jsonl"),
        one_record_per_person=config.data.one_record_per_person,
    )
    compute = SiteCompute(threads=config.model.threads, micro_batch=config.train.micro_batch)
    return Site(
        name=name,
        state=str(home / "state"),
        data=data,
        limits=limits,
        compute=compute,
        secure=_secure(config, folder, name),
    )


def _secure(config: RunConfig, folder: Path, name: str) -> SiteSecure:
    """With whom a simulated site adds up; their identities are made where the records were dealt."""
    secure, count = config.secure, config.sites.count
    if not secure.sum:
        return SiteSecure()
    peers = {other: read_identity(folder / other / "identity.key").public for other in site_names(config)}
    trusted = count - 1 if secure.counted_peers < 0 else secure.counted_peers
    return SiteSecure(peers=peers, identity=str(folder / name / "identity.key"), counted_peers=trusted)


def make_identities(config: RunConfig, folder: Path) -> None:
    """The keys by which sites of a secure sum know each other; nothing where there is none."""
    if config.secure.sum:
        for name in site_names(config):
            (folder / name).mkdir(parents=True, exist_ok=True)
            make_identity(folder / name / "identity.key")


def _caps(config: RunConfig) -> dict[str, int]:
    """A simulated site's owner is who wrote the configuration: what that asks for is allowed, and usual sizes."""
    usual, continual = SiteLimits(), config.continual
    public = sum(int(settings.plain().get("batch", 0)) for _, settings in continual.composed)
    needed = {
        "max_steps": config.train.steps,
        "max_rank": max(config.adapter.rank, *config.adapter.site_ranks, 1),
        "max_tokens": config.model.max_tokens,
        "max_stages": len(config.stage),
        "max_public": public,
        "max_labels": MOST_LABELS,
        "max_trained": MOST_TRAINED,
        "max_message_mb": MAX_BYTES // 2**20,
    }
    return {name: max(count, int(getattr(usual, name))) for name, count in needed.items()}


def _plugins(config: RunConfig) -> list[str]:
    """What the configuration names of other packages that acts at a site."""
    guards = [guard.name for guard, _ in config.continual.composed if guard.site is not None]
    tasks = [f"tasks:{kind}" for kind in kinds_of(config) if kind not in TASKS]
    return [f"guards:{name}" for name in guards if name not in SITE_GUARDS] + tasks


def write_site_files(config: RunConfig, folder: Path) -> None:
    """The sites as files, for the backends whose clients are processes of their own."""
    sites = Sites(config, folder)
    for name in sites.names:
        atomic_write(folder / name / "site.toml", sites.file(name))


def site_file(config: RunConfig, folder: Path, name: str) -> bytes:
    """A simulated site as a file; paths relative to it."""
    site = simulated_site(config, folder, name)
    data = {"train": "{stage}.jsonl", "held_out": "{stage}.held_out.jsonl"}
    key = {"identity": "identity.key" if site.secure.identity else ""}
    moved = {"data": site.data.model_copy(update=data), "secure": site.secure.model_copy(update=key)}
    return table_to_toml(site.model_copy(update={"state": "state", **moved}).model_dump()).encode()
