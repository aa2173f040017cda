"""This site's records of one stage, as token ids, and whose they are. The only client file that reads records."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from client.site import Site
from llmchain_fl.adapter.resident import ResidentSpec
from llmchain_fl.config.schema import NAME
from llmchain_fl.data.labels import check_labels
from llmchain_fl.data.rows import Rows
from llmchain_fl.data.source import path_of, read_rows
from llmchain_fl.errors import DataError, WireError
from llmchain_fl.privacy.units import Units, same_person
from llmchain_fl.tasks.base import Examples, Task
from llmchain_fl.tasks.spec import COLUMNS, TaskSpec
from llmchain_fl.work import WorkSpec

log = logging.getLogger("llmchain_fl.client")
PERSON = "person"


@dataclass(frozen=True)
class SiteRecords:
    """Records and their privacy units. ``names``: of the person behind each unit, where the records name one."""

    examples: Examples
    units: Units
    names: tuple[str, ...]


Kept = dict[tuple[str, str, str, ResidentSpec, TaskSpec], SiteRecords]


def _source(site: Site, stage: str, which: str) -> str:
    """Where the records of a stage are; empty if the site file says nothing.

    Raises:
        WireError: the server's name for the stage might lead out of the site's folder.
    """
    if not re.fullmatch(NAME, stage):
        raise WireError(
            "the name of the stage cannot stand in a path", remedy="server and site must run the same version"
        )
    return (site.data.train if which == "train" else site.data.held_out).replace("{stage}", stage)


def has_records(site: Site, stage: str, which: str) -> bool:
    """Whether there is anything to read; a site too small to keep records for its own score has no such file."""
    source = _source(site, stage, which)
    path = path_of(source)
    return bool(source) and (path is None or path.exists())


def site_records(site: Site, stage: str, which: str, work: WorkSpec, task: Task, kept: Kept) -> SiteRecords:
    """Records of ``stage``, encoded. ``which``: ``train`` or ``held_out``.

    ``kept`` holds what was read before for this very model and task; what was read for another one is dropped.

    ==========================================  ====================================================================
    work                                        a unit is
    ==========================================  ====================================================================
    without privacy, or with unit ``site``      a record
    unit ``record``                             a record; a warning in the site's log if the file names persons twice
    unit ``person``                             all records with one name in the column ``person``
    ... and ``one_record_per_person``           a record: the data holder declares that all of them are of other persons
    ==========================================  ====================================================================

    Raises:
        WireError: the server's name for the stage might lead out of the site's folder.
        DataError: a missing file, column or label, an unreadable line, no record: file, line and remedy, no record.
    """
    source, spec = _source(site, stage, which), work.task
    if not source:
        raise DataError(f"the site has no {which} records", remedy=f"set data.{which} in the site file")
    unit = work.plan.unit if work.plan is not None else "record"
    key = (source, which, unit, work.resident, spec)
    for other in [known for known in kept if known[3:] != key[3:]]:
        del kept[other]
    if key not in kept:
        kept[key] = _read(site, source, unit, work, task)
    return kept[key]


def _read(site: Site, source: str, unit: str, work: WorkSpec, task: Task) -> SiteRecords:
    spec = work.task
    by_person = unit == "person" and not site.data.one_record_per_person
    required = (*COLUMNS[spec.kind], PERSON) if by_person else COLUMNS[spec.kind]
    rows = read_rows(source, mapping=site.data.columns, required=required, split="train", seed=0, size=None)
    if not rows.records:
        raise DataError(
            "the file holds no record",
            where=source,
            remedy="give the site records for this stage, or leave the stage out",
        )
    if spec.kind == "classification":
        check_labels(rows, [name for name, _ in spec.labels])
    if by_person:
        people = [same_person(row[PERSON]) for row in rows.records]
        return SiteRecords(task.encode(rows.records), Units.of_people(people), tuple(dict.fromkeys(people)))
    _warn_of_persons(site, rows, unit, private=work.plan is not None)
    return SiteRecords(task.encode(rows.records), Units.of_records(len(rows)), ())


def _warn_of_persons(site: Site, rows: Rows, unit: str, *, private: bool) -> None:
    people = [same_person(row[PERSON]) for row in rows.records if PERSON in row]
    if not private or unit == "site" or len(set(people)) == len(people):
        return
    if unit == PERSON:
        raise DataError(
            "the site file says one_record_per_person, but the column person holds somebody twice",
            where=rows.where,
            remedy="take one_record_per_person out of the site file",
        )
    log.warning(
        "%s: the privacy unit is one record, and persons have several: they are protected less than epsilon says; "
        'ask for privacy.unit = "person"',
        site.name,
    )
