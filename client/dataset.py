"""This site's records of one stage, as token ids. The only client file that reads records."""

from __future__ import annotations

from client.site import Site
from llmchain_fl.data.labels import check_labels
from llmchain_fl.data.source import read_rows
from llmchain_fl.errors import DataError
from llmchain_fl.tasks.base import Examples, Task
from llmchain_fl.tasks.spec import COLUMNS, TaskSpec

Kept = dict[tuple[str, str, TaskSpec], Examples]


def site_examples(site: Site, stage: str, which: str, spec: TaskSpec, task: Task, kept: Kept) -> Examples:
    """Records of ``stage``, encoded. ``which``: ``train`` or ``held_out``. ``kept`` holds what was read before.

    Raises:
        DataError: a missing file, column or label, an unreadable line, no record: file, line and remedy, no record.
    """
    source = (site.data.train if which == "train" else site.data.held_out).replace("{stage}", stage)
    key = (source, which, spec)
    if key not in kept:
        rows = read_rows(source, mapping=site.data.columns, required=COLUMNS[spec.kind], split="train", seed=0, size=None)
        if not rows.records:
            raise DataError("the file holds no record", where=source, remedy="give the site records for this stage, or leave the stage out")
        if spec.kind == "classification":
            check_labels(rows, [name for name, _ in spec.labels])
        kept[key] = task.encode(rows.records)
    return kept[key]
