"""Deals records out: writes one folder a site, exactly what a real site has: its records and its site file.

``RUN/sites/site-00/{cards.jsonl, cards.held_out.jsonl, site.toml, state/}``. Every backend reads the same folders, so
the three ways of running differ in nothing but the transport.
"""

from __future__ import annotations

import glob
import hashlib
import json
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from client.site import Site, SiteCompute, SiteData, SiteLimits
from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.config.calendar import site_order, unknown_sites
from llmchain_fl.config.schema import RunConfig, StageConfig
from llmchain_fl.config.write import table_to_toml
from llmchain_fl.core.data.rows import Rows
from llmchain_fl.core.data.source import without_rows
from llmchain_fl.core.errors import ConfigError, DataError
from llmchain_fl.core.guards import SITE_GUARDS
from llmchain_fl.core.messages import MAX_BYTES
from llmchain_fl.core.privacy.units import same_person
from llmchain_fl.core.tasks.kind import TASKS
from llmchain_fl.core.tasks.spec import MOST_LABELS
from llmchain_fl.data.source import resolve_site
from llmchain_fl.data.stages import Sources, check_stages, public_labels
from simulations.partition import PARTITIONERS, Indices, Sites
from simulations.streams import Record, Share, shaped

DONE = "dealt.json"
MOST_TRAINED = 10**12
"""How many numbers an adapter has is known once its base is loaded; a simulation is limited by memory alone."""
Part = tuple[Rows, Indices]
"""Rows, and the positions of those that are one site's."""


def prepare_sites(config: RunConfig, folder: Path) -> list[Site]:
    """The simulated sites of a run; dealt once, found again on resume.

    Raises:
        ConfigError: a stream that does not fit the label list, or an arrival of a site that is not there.
        DataError: not readable, or a site is left without a record in some stage that it is sent to.
    """
    names = site_names(config)
    if not (folder / DONE).is_file():
        labels = list(public_labels(config))
        check_stages(config, labels)
        strangers = unknown_sites(config, names)
        if strangers:
            raise ConfigError(strangers)
        for name, shares in _deal(config, labels, names).items():
            for stage, share in shaped(config, name, shares).items():
                _write_share(folder / name, stage, share)
            _write_site_file(config, folder, name)
        atomic_write(folder / DONE, json.dumps(names).encode())
    return [simulated_site(config, folder, name) for name in names]


def _deal(config: RunConfig, labels: list[str], names: list[str]) -> dict[str, dict[str, Share]]:
    """Site -> stage -> records. Neither the order of the stream nor who arrives when changes what is dealt to whom."""
    found: dict[str, dict[str, Share]] = {name: {} for name in names}
    for position, (stage, parts) in enumerate(zip(config.stage, _parts(config, labels, names), strict=True)):
        for number, (name, (rows, chosen)) in enumerate(zip(names, parts, strict=True)):
            draw = np.random.default_rng([config.seed, position, number])
            records = _with_persons(config, [rows.records[int(i)] for i in chosen], stage.name, draw)
            if not records and stage.name in site_order(config, name):
                raise DataError(
                    f'{name} has no record in stage "{stage.name}"',
                    where=rows.where,
                    remedy="use fewer sites, more records or a larger alpha, or leave the stage out of its order",
                )
            kept = _held_out(config, records, draw)
            found[name][stage.name] = Share(
                [row for row, out in zip(records, kept, strict=True) if not out],
                [row for row, out in zip(records, kept, strict=True) if out],
            )
    return found


def site_names(config: RunConfig) -> list[str]:
    """``site-00`` ...; or, with ``{site}`` in the path of the data, the names of the files that are there.

    Raises:
        DataError: not one file a site.
    """
    pattern, _ = without_rows(config.data.train or config.stage[0].train)
    if "{site}" not in pattern:
        width = max(2, len(str(config.sites.count - 1)))
        return [f"site-{number:0{width}d}" for number in range(config.sites.count)]
    before, _, after = pattern.replace("{split}", "train").partition("{site}")
    paths = glob.glob(f"{glob.escape(before)}*{glob.escape(after)}")
    if len(paths) != config.sites.count:
        raise DataError(
            f"{len(paths)} files match {pattern}, sites.count = {config.sites.count}",
            remedy="check data.train ({site} stands for the site's name), or set sites.count to the number of files",
        )
    return sorted(path[len(before) : len(path) - len(after)] for path in paths)


def _parts(config: RunConfig, labels: list[str], names: list[str]) -> list[list[Part]]:
    """For each stage as written, each site's rows.

    Own files where each site has them; else by ``sites.partition``. A partition by a column is one for the whole run,
    so that a hospital is the same site in every stage, also where it has records in one of them only.
    """
    patterns = [stage.train or config.data.train for stage in config.stage]
    own, sources = ["{site}" in pattern for pattern in patterns], Sources()
    read = [
        None if mine else sources.stage(config, stage, "train", labels)
        for stage, mine in zip(config.stage, own, strict=True)
    ]
    dealt = _by_column if config.sites.partition in ("column", "natural") else _stage_by_stage
    shared = dealt(config, read, len(names))
    return [
        _own_files(config, stage, pattern, labels, names) if rows is None else [(rows, part) for part in parts]
        for stage, pattern, rows, parts in zip(config.stage, patterns, read, shared, strict=True)
    ]


def _own_files(config: RunConfig, stage: StageConfig, pattern: str, labels: list[str], names: list[str]) -> list[Part]:
    read = [Sources().stage(config, stage, "train", labels, source=resolve_site(pattern, name)) for name in names]
    return [(rows, np.arange(len(rows.records))) for rows in read]


def _stage_by_stage(config: RunConfig, read: list[Rows | None], count: int) -> list[Sites]:
    return [
        [] if rows is None else _dealt(config, [rows], count, config.seed + position)
        for position, rows in enumerate(read)
    ]


def _by_column(config: RunConfig, read: list[Rows | None], count: int) -> list[Sites]:
    there = [rows for rows in read if rows is not None]
    parts = _dealt(config, there, count, config.seed) if there else []
    found: list[Sites] = []
    start = 0
    for rows in read:
        end = start + (0 if rows is None else len(rows.records))
        found.append([part[(part >= start) & (part < end)] - start for part in parts])
        start = end
    return found


def _dealt(config: RunConfig, read: list[Rows], count: int, seed: int) -> Sites:
    """The rows of all of ``read``, one behind the other, dealt to ``count`` sites."""
    sites = config.sites
    records = [row for rows in read for row in rows.records]
    groups = [row.get(sites.column, "") for row in records] if sites.column else None
    if groups is not None and not all(groups):
        raise DataError(
            f"there is no column {sites.column}, or it is empty in some records",
            where=read[0].where,
            remedy="correct sites.column",
        )
    return PARTITIONERS[sites.partition]([r.get("label", "") for r in records], groups, count, seed, sites.alpha, 1)


def _with_persons(config: RunConfig, records: list[Record], stage: str, draw: np.random.Generator) -> list[Record]:
    """The records, handed to made-up persons with 1 to ``data.made_up_persons`` records each, if the run asks for it.

    The persons of two stages differ.
    """
    most = config.data.made_up_persons
    if not most:
        return records
    sizes = draw.integers(1, most + 1, size=len(records))
    owners = np.repeat(np.arange(len(records)), sizes)[: len(records)]
    mixed = draw.permutation(len(records))
    return [{**records[int(i)], "person": f"{stage}-{int(owner):06d}"} for i, owner in zip(mixed, owners, strict=True)]


def _write_share(folder: Path, stage: str, share: Share) -> None:
    """One site's records of one stage; no file where there are none."""
    for file, rows in {f"{stage}.jsonl": share.train, f"{stage}.held_out.jsonl": share.held_out}.items():
        if rows:
            atomic_write(folder / file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def _held_out(config: RunConfig, records: list[Record], draw: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which records are kept for the site's own score: a share of the records, or of the persons by a public hash.

    With the privacy unit ``person`` somebody is held out in all stages or in none, as the site's register demands.
    """
    share = config.sites.held_out
    if config.privacy.enabled and config.privacy.unit == "person" and not config.data.one_record_per_person:
        names = [same_person(row.get("person", "")) for row in records]
        chances = [int.from_bytes(hashlib.sha256(f"{config.seed} {name}".encode()).digest()[:6]) for name in names]
        kept = np.array([chance / 2**48 < share for chance in chances])
        return kept if not kept.all() else ~kept  # a site of so few persons trains on all of them
    kept = np.zeros(len(records), dtype=bool)
    kept[draw.permutation(len(records))[: int(len(records) * share)]] = True
    return kept


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
    return Site(name=name, state=str(home / "state"), data=data, limits=limits, compute=compute)


def _caps(config: RunConfig) -> dict[str, int]:
    """A simulated site's owner is who wrote the configuration: what that asks for is allowed, and usual sizes."""
    usual, continual = SiteLimits(), config.continual
    public = sum(int(settings.plain().get("batch", 0)) for _, settings in continual.composed)
    asked = {
        "max_steps": config.train.steps,
        "max_rank": max(config.adapter.rank, *config.adapter.site_ranks, 1),
        "max_tokens": config.model.max_tokens,
        "max_stages": len(config.stage),
        "max_public": public,
        "max_labels": MOST_LABELS,
        "max_trained": MOST_TRAINED,
        "max_message_mb": MAX_BYTES // 2**20,
    }
    return {name: max(count, int(getattr(usual, name))) for name, count in asked.items()}


def _plugins(config: RunConfig) -> list[str]:
    """What the configuration names of other packages that acts at a site."""
    guards = [guard.name for guard, _ in config.continual.composed if guard.site is not None]
    tasks = [] if config.task.kind in TASKS else [f"tasks:{config.task.kind}"]
    return [f"guards:{name}" for name in guards if name not in SITE_GUARDS] + tasks


def _write_site_file(config: RunConfig, folder: Path, name: str) -> None:
    """The same site as a file, for the backends whose clients are processes of their own; paths relative to it."""
    site = simulated_site(config, folder, name)
    local = site.model_copy(
        update={
            "state": "state",
            "data": site.data.model_copy(update={"train": "{stage}.jsonl", "held_out": "{stage}.held_out.jsonl"}),
        }
    )
    atomic_write(folder / name / "site.toml", table_to_toml(local.model_dump()).encode())
