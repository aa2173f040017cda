"""This site's records of one stage, as token ids, and whose they are. The only client file that reads records."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.site import Site
from llmchain_fl.core.adapter.resident import ResidentSpec
from llmchain_fl.core.data.columns import only_labels, only_sound
from llmchain_fl.core.data.readers import Dialect
from llmchain_fl.core.data.rows import LeftOut, Misfit, Rows, sort_out
from llmchain_fl.core.data.source import path_of, read_fitting
from llmchain_fl.core.data.state import State, state_of
from llmchain_fl.core.errors import SAME, DataError, WireError
from llmchain_fl.core.privacy.units import Units, same_person
from llmchain_fl.core.regular_file import kind_of
from llmchain_fl.core.section import NAME
from llmchain_fl.core.tasks.base import Examples, Task
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.work import WorkSpec

log = logging.getLogger("llmchain_fl.client")
PERSON = "person"
UNKNOWN = 0.5
"""Share of unknown tokens above which the site's log says so."""


@dataclass(frozen=True, slots=True)
class SiteRecords:
    """Records and their privacy units. ``names``: of the person behind each unit, where names tell units apart."""

    examples: Examples
    units: Units
    names: tuple[str, ...]
    state: State | None = None
    """Of the source when it was read; None: it must be read again."""


Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """The records of one stage, who pays for them, and which of its units are kept."""

    stage: str
    group: str
    records: SiteRecords
    kept: Mask


Cache = dict[tuple[str, str, str, ResidentSpec, TaskSpec], SiteRecords]


def _source(site: Site, stage: str, which: str) -> str:
    """Where the records of a stage are; empty if the site file says nothing.

    Raises:
        WireError: the server's name for the stage might lead out of the site's folder.
    """
    if not re.fullmatch(NAME, stage):
        raise WireError("the name of the stage cannot stand in a path", remedy=SAME)
    return (site.data.train if which == "train" else site.data.held_out).replace("{stage}", stage)


def has_records(site: Site, stage: str, which: str) -> bool:
    """Whether there is anything to read; a site too small to keep records for its own score has no such file."""
    source = _source(site, stage, which)
    path = path_of(source)
    return bool(source) and (path is None or kind_of(path) != "")


def site_records(site: Site, stage: str, which: str, work: WorkSpec, task: Task, cached: Cache) -> SiteRecords:
    """Records of ``stage``, encoded. ``which``: ``train`` or ``held_out``.

    ``cached`` holds what was read before for this very model and task; what was read for another one is dropped, and
    what was read from a source that is no longer the same (``core/data/state.py``): an erasure works at once.

    ==========================================  ====================================================================
    work                                        a unit is
    ==========================================  ====================================================================
    without privacy, or with unit ``site``      a record
    unit ``record``                             a record; a warning in the site's log if the file names persons twice
    unit ``person``                             all records with one name in the column ``person``
    ... and ``one_record_per_person``           a record; those that a column ``person`` shows to be of one, together
    ==========================================  ====================================================================

    A record that does not fit (a broken line, an empty cell, a label that is not in the list) is left out and counted
    in the site's own log; with privacy no record, or all of them, may be left out without a word to the server.

    Raises:
        WireError: the server's name for the stage might lead out of the site's folder.
        DataError: a fault of the whole file: missing, no table, a header without a column that is asked for; and,
            without privacy, no record that fits.
    """
    source, spec = _source(site, stage, which), work.task
    if not source:
        raise DataError(f"the site has no {which} records", remedy=f"set data.{which} in the site file")
    unit = work.plan.unit if work.plan is not None else "record"
    key = (source, which, unit, work.resident, spec)
    for other in [known for known in cached if known[3:] != key[3:]]:
        del cached[other]
    state = state_of(source)
    if key in cached and (state is None or cached[key].state != state):
        del cached[key]
    if key not in cached:
        cached[key] = replace(_read(site, source, unit, work, task), state=state)
    return cached[key]


def _read(site: Site, source: str, unit: str, work: WorkSpec, task: Task) -> SiteRecords:
    spec, named = work.task, site.named(unit)
    kind = task_kind(spec.kind)
    required = (*kind.columns, PERSON) if named else kind.columns
    dialect, allowed = Dialect(site.data.encoding, site.data.delimiter), site.limits.plugins
    rows, left = read_fitting(source, mapping=site.data.columns, required=required, dialect=dialect, allowed=allowed)
    if kind.labelled:
        rows, others = only_labels(rows, [name for name, _ in spec.labels])
        left = left + others
    if kind.fault is not None:
        names = frozenset(name for name, _ in spec.labels)
        rows, others = only_sound(rows, lambda row: kind.fault_of(row, names))
        left = left + others
    examples, rows, left = _encoded(task, rows, left)
    _tell(site, rows, left)
    _warn_of_unknown(site, task, examples)
    if not rows.records and work.plan is None:
        raise DataError(
            "holds no record that fits", where=source, remedy="give the site records for this stage, or leave it out"
        )
    if named:
        people = [same_person(row[PERSON]) for row in rows.records]
        return SiteRecords(examples, Units.of_people(people), tuple(dict.fromkeys(people)))
    if unit == PERSON:
        return SiteRecords(examples, _declared_alone(site, rows), ())
    _warn_of_persons(site, rows, unit, work)
    return SiteRecords(examples, Units.of_records(len(rows)), ())


def _encoded(task: Task, rows: Rows, left: LeftOut) -> tuple[Examples, Rows, LeftOut]:
    """Token ids; a record on which the tokenizer fails is left out, the others are not."""
    try:
        return task.encode(rows.records), rows, left
    except Exception:
        fits = [_is_encoded(task, record) for record in rows.records]
        fitting, others = sort_out(
            place if fits[place] else Misfit(line, "a text that the tokenizer does not take", "")
            for place, line in enumerate(rows.lines)
        )
        rows = rows.select(fitting)
        return task.encode(rows.records), rows, left + others


def _is_encoded(task: Task, record: dict[str, str]) -> bool:
    try:
        task.encode([record])
    except Exception:
        return False
    return True


def _tell(site: Site, rows: Rows, left: LeftOut) -> None:
    if left.total:
        log.warning("%s: of %d records %s", site.name, len(rows) + left.total, left)
    if not rows.records:
        log.error("%s: no record fits this stage; with privacy its rounds are paid for and hold noise alone", site.name)


def _warn_of_unknown(site: Site, task: Task, examples: Examples) -> None:
    """Texts in another language than the base's are [UNK] to it: nothing of them can be learned."""
    tokenizer = task.resident.base.tokenizer
    unknown = getattr(tokenizer, "unk_token_id", None)
    if not len(examples) or unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id):
        return
    share = float((np.concatenate(examples.ids) == unknown).mean())
    if share > UNKNOWN:
        log.warning(
            "%s: the base's tokenizer does not know %.0f %% of the tokens of its records", site.name, 100 * share
        )


def _declared_alone(site: Site, rows: Rows) -> Units:
    """A unit for each record; where a column shows two to be of one person, one unit for both."""
    owners = [same_person(row[PERSON]) if PERSON in row else f"\n{i}" for i, row in enumerate(rows.records)]
    units = Units.of_people(owners)
    if len(units) < len(rows):
        log.error(
            "%s: the site file says one_record_per_person, but the column person holds somebody twice: they are "
            "protected together; take one_record_per_person out of the site file",
            site.name,
        )
    return units


def _warn_of_persons(site: Site, rows: Rows, unit: str, work: WorkSpec) -> None:
    people = [same_person(row[PERSON]) for row in rows.records if PERSON in row]
    if work.plan is None or unit == "site" or len(set(people)) == len(people):
        return
    most = max(Counter(people).values())
    log.warning(
        "%s: the privacy unit is one record, and one person has %d: such a person is protected less than epsilon says "
        '(llmchain-fl privacy explain tells how much less); ask for privacy.unit = "person"',
        site.name,
        most,
    )
