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

from client.site import Site, SiteData, SiteLimits
from llmchain_fl.atomic_file import atomic_write
from llmchain_fl.config.schema import RunConfig, StageConfig
from llmchain_fl.config.write import table_to_toml
from llmchain_fl.data.columns import Rows
from llmchain_fl.data.source import resolve_site
from llmchain_fl.data.stages import public_labels, stage_rows
from llmchain_fl.errors import DataError
from llmchain_fl.privacy.units import same_person
from simulations.partition import PARTITIONERS

DONE = "dealt.json"
Record = dict[str, str]


def prepare_sites(config: RunConfig, folder: Path) -> list[Site]:
    """The simulated sites of a run; dealt once, found again on resume.

    Raises:
        DataError: not readable, or a site is left without a record in some stage.
    """
    names = site_names(config)
    if not (folder / DONE).is_file():
        labels = list(public_labels(config))
        for position, stage in enumerate(config.stage):
            for number, (name, rows, chosen) in enumerate(_shares(config, stage, position, labels, names)):
                draw = np.random.default_rng([config.seed, position, number])
                records = _with_persons(config, [rows.records[int(i)] for i in chosen], stage.name, draw)
                _write_share(config, folder / name, stage.name, records, draw, rows.where)
        for name in names:
            _write_site_file(config, folder, name)
        atomic_write(folder / DONE, json.dumps(names).encode())
    return [_site(config, folder, name) for name in names]


def site_names(config: RunConfig) -> list[str]:
    """``site-00`` ...; or, with ``{site}`` in the path of the data, the names of the files that are there.

    Raises:
        DataError: not one file a site.
    """
    pattern = config.data.train or config.stage[0].train
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


def _shares(
    config: RunConfig, stage: StageConfig, position: int, labels: list[str], names: list[str]
) -> list[tuple[str, Rows, npt.NDArray[np.int64]]]:
    """(site, rows, its rows' positions) of one stage."""
    pattern = stage.train or config.data.train
    if "{site}" in pattern:
        own = [(name, stage_rows(config, stage, "train", labels, source=resolve_site(pattern, name))) for name in names]
        return [(name, rows, np.arange(len(rows.records))) for name, rows in own]
    rows, sites = stage_rows(config, stage, "train", labels), config.sites
    groups = [row.get(sites.column, "") for row in rows.records] if sites.column else None
    if groups is not None and not all(groups):
        raise DataError(
            f"there is no column {sites.column}, or it is empty in some records",
            where=rows.where,
            remedy="correct sites.column",
        )
    deal = PARTITIONERS[sites.partition]
    parts = deal(
        [row.get("label", "") for row in rows.records], groups, len(names), config.seed + position, sites.alpha, 1
    )
    return [(name, rows, np.asarray(part)) for name, part in zip(names, parts, strict=True)]


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


def _write_share(
    config: RunConfig, folder: Path, stage: str, records: list[Record], draw: np.random.Generator, where: str
) -> None:
    """One site's records of one stage, a share of them kept for its own score."""
    if not records:
        raise DataError(
            f'{folder.name} has no record in stage "{stage}"',
            where=where,
            remedy="use fewer sites, more records or a larger alpha",
        )
    held_out = _held_out(config, records, draw)
    parts = {f"{stage}.jsonl": ~held_out, f"{stage}.held_out.jsonl": held_out}
    for file, taken in parts.items():
        if taken.any():
            rows = [row for row, here in zip(records, taken, strict=True) if here]
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


def _site(config: RunConfig, folder: Path, name: str) -> Site:
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
    )
    data = SiteData(
        train=str(home / "{stage}.jsonl"),
        held_out=str(home / "{stage}.held_out.jsonl"),
        one_record_per_person=config.data.one_record_per_person,
    )
    return Site(name=name, state=str(home / "state"), data=data, limits=limits)


def _write_site_file(config: RunConfig, folder: Path, name: str) -> None:
    """The same site as a file, for the backends whose clients are processes of their own; paths relative to it."""
    site = _site(config, folder, name)
    local = site.model_copy(
        update={
            "state": "state",
            "data": site.data.model_copy(update={"train": "{stage}.jsonl", "held_out": "{stage}.held_out.jsonl"}),
        }
    )
    atomic_write(folder / name / "site.toml", table_to_toml(local.model_dump()).encode())
