"""This site's records of one stage, as token ids. The only client file that reads records."""

from __future__ import annotations

import re
from pathlib import Path

from client.site import Site
from llmchain_fl.adapter.resident import ResidentSpec
from llmchain_fl.config.schema import NAME
from llmchain_fl.data.labels import check_labels
from llmchain_fl.data.source import read_rows
from llmchain_fl.errors import DataError, WireError
from llmchain_fl.tasks.base import Examples, Task
from llmchain_fl.tasks.spec import COLUMNS, TaskSpec
from llmchain_fl.work import WorkSpec

Kept = dict[tuple[str, str, ResidentSpec, TaskSpec], Examples]


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
    return bool(source) and (source.startswith(("hub:", "generated:")) or Path(source).exists())


def site_examples(site: Site, stage: str, which: str, work: WorkSpec, task: Task, kept: Kept) -> Examples:
    """Records of ``stage``, encoded. ``which``: ``train`` or ``held_out``.

    ``kept`` holds what was read before for this very model and task; what was read for another one is dropped.

    Raises:
        WireError: the server's name for the stage might lead out of the site's folder.
        DataError: a missing file, column or label, an unreadable line, no record: file, line and remedy, no record.
    """
    source, spec = _source(site, stage, which), work.task
    if not source:
        raise DataError(f"the site has no {which} records", remedy=f"set data.{which} in the site file")
    key = (source, which, work.resident, spec)
    for other in [known for known in kept if known[2:] != key[2:]]:
        del kept[other]
    if key not in kept:
        rows = read_rows(
            source, mapping=site.data.columns, required=COLUMNS[spec.kind], split="train", seed=0, size=None
        )
        if not rows.records:
            raise DataError(
                "the file holds no record",
                where=source,
                remedy="give the site records for this stage, or leave the stage out",
            )
        if spec.kind == "classification":
            check_labels(rows, [name for name, _ in spec.labels])
        kept[key] = task.encode(rows.records)
    return kept[key]
