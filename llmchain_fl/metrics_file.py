"""``metrics.jsonl``: one JSON object per line, appended; the only file of a run that grows.

A crash can tear the last line. It is skipped when read, and cut off before the next row is added; damage anywhere
else was not a crash and is refused. A value that is no finite number is stored as ``null`` (JSON has no NaN) and
read back as NaN.

================================  =============================================================
the file                          what happens
================================  =============================================================
empty, or blank lines             no rows
last line torn                    skipped when read, cut off before the next append
last line whole, no line end      read; the line end is added before the next append
a damaged line with others after  RunError with its number
================================  =============================================================
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llmchain_fl.atomic_file import finite
from llmchain_fl.core.errors import RunError
from llmchain_fl.core.tasks.metric import Metric

MOST_SITES = 200
"""Of more sites than this a round writes one row for all in place of a row each."""
WORST = 8
"""Sites that such a row names: those with the largest numbers."""
ALL_SITES = "sites"
"""Scope of such a row."""
ROW_NEEDS = ("round", "metric", "value")
R_MATRIX = "r_matrix"
UNDECLARED: Mapping[str, Metric] = MappingProxyType(
    {
        "accuracy": Metric("accuracy", "higher", "share", 1.0),
        "loss": Metric("loss", "lower", "nats"),
        "perplexity": Metric("perplexity", "lower"),
    }
)
"""Scores of runs written before rows declared them."""


def append(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Adds ``rows`` to ``path`` and has them on disk when it returns.

    Raises:
        RunError: a row has no round, metric or value; none of the rows is written.
    """
    new = [_line(row) for row in rows]
    if not new:
        return
    _mend(path)
    with path.open("ab") as file:
        file.write(b"".join(new))
        file.flush()
        os.fsync(file.fileno())


def lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each row with the line it stands on (without the line end), in the order written.

    Raises:
        RunError: a line other than the last one is damaged.
    """
    numbered = [(n, line) for n, line in enumerate(path.read_bytes().split(b"\n"), start=1) if line.strip()]
    for place, (number, line) in enumerate(numbered, start=1):
        row = _parsed(line)
        if row is not None:
            yield line, row
        elif place < len(numbered):
            raise RunError(
                f"{path}:{number} is damaged, and {len(numbered) - place} more lines follow it",
                remedy="restore the file from a backup; a crash damages only the last line, so something else did",
            )


def _mend(path: Path) -> None:
    """Ends the file with a whole line: adds a missing line end, cuts a torn line off."""
    with path.open("rb+") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        whole = file.read()
        last = whole.rfind(b"\n") + 1
        if _parsed(whole[last:]) is not None:
            file.write(b"\n")
        else:
            file.truncate(last)


def _fault(row: object) -> str:
    """Why ``row`` is no row of the metrics; empty where it is one."""
    if not isinstance(row, dict):
        return "a row that is no JSON object"
    lacking = [key for key in ROW_NEEDS if key not in row]
    if lacking:
        return f"a row without {', '.join(lacking)}"
    if not isinstance(row["round"], int):
        return "a row whose round is no whole number"
    return "" if isinstance(row["value"], int | float | None) else "a row whose value is no number"


def _line(row: dict[str, Any]) -> bytes:
    plain = finite(row)
    if fault := _fault(plain):
        raise RunError(fault, remedy=f"every row has {', '.join(ROW_NEEDS)}; nothing was written")
    return json.dumps(plain, allow_nan=False).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The row of one line, or None where the line is no row."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return None if _fault(row) else row | {"value": math.nan if row["value"] is None else row["value"]}


def by_site(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of scope ``site``, or where more than ``MOST_SITES`` sites tell the same number one row of it for all.

    ==========================================  ================================================================
    rows of one round, metric, task             result
    ==========================================  ================================================================
    of at most ``MOST_SITES`` sites             these
    of more                                     one of scope ``sites``: ``value`` is the largest, ``total`` their sum,
                                                ``n`` how many they are, ``quartiles`` lowest to highest, ``largest``
                                                the ``WORST`` sites; of a ``reason``, how often each was given
    ==========================================  ================================================================
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["round"], row["metric"], row.get("task")), []).append(row)
    return [row for group in groups.values() for row in (group if len(group) <= MOST_SITES else [_of_all(group)])]


def _of_all(rows: list[dict[str, Any]]) -> dict[str, Any]:
    values = sorted(float(row["value"]) for row in rows)
    last = len(values) - 1
    largest = sorted(rows, key=lambda row: (-float(row["value"]), str(row["site"])))[:WORST]
    summary: dict[str, Any] = {
        "scope": ALL_SITES,
        "site": None,
        "n": len(rows),
        "value": values[-1],
        "total": math.fsum(values),
        "quartiles": [values[round(last * part / 4)] for part in range(5)],
        "largest": {str(row["site"]): row["value"] for row in largest},
    }
    if "reason" in rows[0]:
        summary["reason"] = dict(Counter(str(row["reason"]) for row in rows))
    return {**rows[0], **summary}


def declaration(metric: Metric) -> dict[str, Any]:
    """The fields by which a row says what its number means: ``better``, ``unit``, ``bound`` (null: none)."""
    return {"better": metric.better, "unit": metric.unit, "bound": metric.bound}


def declared(rows: Iterable[Mapping[str, Any]]) -> dict[str, Metric]:
    """Name -> declaration of every number of ``rows`` that has one, in the order written.

    ==========================================  =====================================================
    row                                         result
    ==========================================  =====================================================
    ``better`` is "higher" or "lower"           that, with its unit; a bound of null is none (inf)
    no ``better``, a score of an earlier        as :data:`UNDECLARED` has it
    version (also with ``test_``, ``local_``)
    no ``better``, anything else                left out: neither way is better
    a name declared twice                       the first row counts
    ==========================================  =====================================================
    """
    metrics: dict[str, Metric] = {}
    for row in rows:
        name, better = str(row["metric"]), row.get("better")
        if name in metrics:
            continue
        if better in ("higher", "lower"):
            bound = row.get("bound")
            bound = float(bound) if isinstance(bound, int | float) and not math.isnan(bound) else math.inf
            metrics[name] = Metric(name, better, str(row.get("unit", "")), bound)
        elif (plain := name.removeprefix("test_").removeprefix("local_")) in UNDECLARED:
            metrics[name] = replace(UNDECLARED[plain], name=name)
    return metrics


def main_metric(rows: Iterable[Mapping[str, Any]]) -> Metric:
    """The main score of a run: the first number of the global adapter that is written; "score" where there is none."""
    scores = (row for row in rows if row.get("scope", "global") == "global" and row["metric"] != R_MATRIX)
    return next(iter(declared(scores).values()), Metric("score", "higher"))


def direction(rows: Iterable[Mapping[str, Any]], name: str) -> float:
    """1 where more of the number ``name`` is better, or where no row says, -1 where less is."""
    return declared(rows).get(name, Metric(name, "higher")).sign
