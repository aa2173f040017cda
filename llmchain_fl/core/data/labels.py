"""Labels of records against the public label list."""

from __future__ import annotations

from collections.abc import Collection

from llmchain_fl.core.data.rows import LeftOut, Misfit, Rows, how_many, sort_out
from llmchain_fl.core.errors import DataError


def check_labels(rows: Rows, labels: Collection[str]) -> None:
    """Every label must stand in the public label list. A label that does not is private: it is not quoted.

    Args:
        rows: with a column "label".
        labels: the label list.

    Raises:
        DataError: with the number of such records and the first five lines.
    """
    known = frozenset(labels)
    unknown = [line for label, line in zip(rows.column("label"), rows.lines, strict=True) if label not in known]
    if unknown:
        raise DataError(
            f"{how_many(unknown)} a label that is not in the public label list of {len(known)} labels",
            where=str(unknown[0]),
            remedy="spell the label as in the list (case and spaces count), add it to the list, or map other names",
        )


def only_labels(rows: Rows, labels: Collection[str]) -> tuple[Rows, LeftOut]:
    """The records whose label stands in the public label list, and how many have another one (which is not quoted).

    What a record's own label is decides about this record and no other.

    Args:
        rows: with or without a column "label"; a record without one is left out.
        labels: the label list.
    """
    known = frozenset(labels)
    reason = f"a label that is not in the public label list of {len(known)} labels"
    kept, left = sort_out(
        place if record.get("label") in known else Misfit(line, reason, "")
        for place, (record, line) in enumerate(zip(rows.records, rows.lines, strict=True))
    )
    return rows.select(kept), left
