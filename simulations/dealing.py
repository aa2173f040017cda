"""Which simulated site gets which records: whole stages, a column's groups, own files; and what an extension adds.

Neither the order of the stream nor who arrives when changes what is dealt to whom; a stage is dealt once.
"""

from __future__ import annotations

import glob
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmchain_fl.config.calendar import site_order
from llmchain_fl.config.schema import RunConfig, StageConfig
from llmchain_fl.core.data.rows import Rows
from llmchain_fl.core.data.source import without_rows
from llmchain_fl.core.errors import DataError
from llmchain_fl.core.privacy.units import same_person
from llmchain_fl.data.source import resolve_site
from llmchain_fl.data.stages import Sources
from simulations.partition import PARTITIONERS, Indices, Sites
from simulations.streams import Record, Share

Part = tuple[Rows, Indices]
"""Rows, and the positions of those that are one site's."""


@dataclass(frozen=True)
class Dealt:
    """What has been dealt out so far."""

    sites: list[str]
    stages: list[str]
    groups: dict[str, int]
    """Group of ``sites.column`` -> position of its site; empty where no column deals."""


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


def deal(
    config: RunConfig, labels: list[str], names: list[str], done: Dealt
) -> tuple[dict[str, dict[str, Share]], dict[str, int]]:
    """Site -> stage -> records, and which group of the column is whose; of what is not ``done`` yet.

    Neither the order of the stream nor who arrives when changes what is dealt to whom.
    """
    shares: dict[str, dict[str, Share]] = {name: {} for name in names}
    all_parts, groups = _parts(config, labels, names, done)
    for position, (stage, parts) in enumerate(zip(config.stage, all_parts, strict=True)):
        for number, (name, (rows, chosen)) in enumerate(zip(names, parts, strict=True)):
            if stage.name in done.stages and name in done.sites:
                continue
            draw = np.random.default_rng([config.seed, position, number])
            records = _with_persons(config, [rows.records[int(i)] for i in chosen], stage.name, draw)
            if not records and stage.name in site_order(config, name):
                raise _no_record(name, stage.name, rows.where, dealt=stage.name in done.stages)
            held_out = _held_out(config, records, draw)
            shares[name][stage.name] = Share(
                [row for row, out in zip(records, held_out, strict=True) if not out],
                [row for row, out in zip(records, held_out, strict=True) if out],
            )
    return shares, groups


def _no_record(name: str, stage: str, where: str, *, dealt: bool) -> DataError:
    remedy = "use fewer sites, more records or a larger alpha, or leave the stage out of its order"
    if dealt:
        remedy = "its records are the other sites' already: let it join at a later stage, or give each site a file"
    return DataError(f'{name} has no record in stage "{stage}"', where=where, remedy=remedy)


def _parts(
    config: RunConfig, labels: list[str], names: list[str], done: Dealt
) -> tuple[list[list[Part]], dict[str, int]]:
    """For each stage as written, each site's rows; and which group of the column is whose.

    Own files where each site has them; else by ``sites.partition``. A partition by a column is one for the whole run,
    so that a hospital is the same site in every stage, also where it has records in one of them only. Stages that are
    dealt already have nothing left.
    """
    patterns = [stage.train or config.data.train for stage in config.stage]
    own, sources = ["{site}" in pattern for pattern in patterns], Sources()
    read = [
        None if mine or stage.name in done.stages else sources.stage(config, stage, "train", labels)
        for stage, mine in zip(config.stage, own, strict=True)
    ]
    if config.sites.partition in ("column", "natural"):
        shared, groups = _by_column(config, read, len(names), done)
    else:
        shared, groups = _stage_by_stage(config, read, len(names)), {}
    nothing = (Rows(records=[], lines=[], where=""), np.zeros(0, dtype=np.int64))
    by_stage = []
    for stage, mine, pattern, rows, parts in zip(config.stage, own, patterns, read, shared, strict=True):
        if mine:
            left = [name for name in names if not (stage.name in done.stages and name in done.sites)]
            files = dict(zip(left, _own_files(config, stage, pattern, labels, left), strict=True))
            by_stage.append([files.get(name, nothing) for name in names])
        else:
            by_stage.append([nothing] * len(names) if rows is None else [(rows, part) for part in parts])
    return by_stage, groups


def _own_files(config: RunConfig, stage: StageConfig, pattern: str, labels: list[str], names: list[str]) -> list[Part]:
    read = [Sources().stage(config, stage, "train", labels, source=resolve_site(pattern, name)) for name in names]
    return [(rows, np.arange(len(rows.records))) for rows in read]


def _stage_by_stage(config: RunConfig, read: list[Rows | None], count: int) -> list[Sites]:
    return [
        [] if rows is None else _dealt(config, [rows], count, config.seed + position)
        for position, rows in enumerate(read)
    ]


def _by_column(
    config: RunConfig, read: list[Rows | None], count: int, done: Dealt
) -> tuple[list[Sites], dict[str, int]]:
    there = [rows for rows in read if rows is not None]
    names = _groups(config, there)
    if done.groups:
        parts = further_groups(names, count, done.groups)
    else:
        parts = _dealt(config, there, count, config.seed) if there else []
    owners = {names[int(row)]: site for site, part in enumerate(parts) for row in part}
    by_stage: list[Sites] = []
    start = 0
    for rows in read:
        end = start + (0 if rows is None else len(rows.records))
        by_stage.append([part[(part >= start) & (part < end)] - start for part in parts])
        start = end
    return by_stage, {**done.groups, **owners}


def further_groups(groups: Sequence[str], sites: int, owners: Mapping[str, int]) -> Sites:
    """Rows that come later: a group that has a site goes there; a new one, the largest first, to whoever has least.

    Args:
        groups: the group of each row.
        sites: how many sites there are now.
        owners: group -> position of its site, of the groups that were dealt before.
    """
    sizes = Counter(groups)
    site_of = dict(owners)
    held = [sum(size for group, size in sizes.items() if owners.get(group) == site) for site in range(sites)]
    for group in sorted(sizes.keys() - owners.keys(), key=lambda group: (-sizes[group], group)):
        site_of[group] = held.index(min(held))
        held[site_of[group]] += sizes[group]
    rows = [[row for row, group in enumerate(groups) if site_of[group] == site] for site in range(sites)]
    return [np.array(part, dtype=np.int64) for part in rows]


def _groups(config: RunConfig, read: list[Rows]) -> list[str]:
    """The group of each row of all of ``read``, one behind the other."""
    groups = [row.get(config.sites.column, "") for rows in read for row in rows.records]
    if not all(groups):
        raise DataError(
            f"there is no column {config.sites.column}, or it is empty in some records",
            where=read[0].where,
            remedy="correct sites.column",
        )
    return groups


def _dealt(config: RunConfig, read: list[Rows], count: int, seed: int) -> Sites:
    """The rows of all of ``read``, one behind the other, dealt to ``count`` sites."""
    sites = config.sites
    labels = [row.get("label", "") for rows in read for row in rows.records]
    groups = _groups(config, read) if sites.column else None
    return PARTITIONERS[sites.partition](labels, groups, count, seed, sites.alpha, 1)


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


def _held_out(config: RunConfig, records: list[Record], draw: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which records are kept for the site's own score: a share of the records, or of the persons by a public hash.

    With the privacy unit ``person`` somebody is held out in all stages or in none, as the site's register demands.
    """
    share = config.sites.held_out
    if config.privacy.enabled and config.privacy.unit == "person" and not config.data.one_record_per_person:
        names = [same_person(row.get("person", "")) for row in records]
        chances = [int.from_bytes(hashlib.sha256(f"{config.seed} {name}".encode()).digest()[:6]) for name in names]
        held_out = np.array([chance / 2**48 < share for chance in chances], dtype=bool)
        return held_out if not held_out.all() else ~held_out  # a site of so few persons trains on all of them
    held_out = np.zeros(len(records), dtype=bool)
    held_out[draw.permutation(len(records))[: int(len(records) * share)]] = True
    return held_out
