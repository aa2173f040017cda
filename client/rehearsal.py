"""Whose records a round may draw: those of its stage, and with the guard ``rehearsal`` kept ones of earlier stages.

Guard ``rehearsal`` (experience replay): each unit of an earlier stage is kept with probability ``keep``, once and for
the whole run, by a keyed hash of whose it is: never by loss, by label or by how typical it is (herding would let one
person decide over others). What is kept stays where it was, in the site's own file of that stage; nothing is copied. In
a step a kept unit is drawn with the same probability q as everybody, and a person who is in both stages is one unit
with the records of both.

The site owns the identity of records over all stages: the same record in the files of two stages (one file for all of
them, a copy) is one record. Counted twice it would move the sum twice.

Cost (``privacy/charges.py``): the group of every rehearsed stage pays for the round as if it were training, kept or
not. With ``privacy.stages = "shared"`` everybody pays for every round anyway, so it adds nothing; with ``disjoint`` the
first stage pays for all rounds that follow, and the noise is calibrated to that.

====================================  ====================================================
case                                  result
====================================  ====================================================
keep = 0                              the current stage alone
keep = 1                              all units of all earlier stages
a record in the files of two stages   one record, of the first of them that counts it
the site has no file of that stage    left out; its group pays all the same (a public rule)
asked again for the same round        the same units are kept
====================================  ====================================================
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from client.dataset import Mask, Part, SiteRecords
from llmchain_fl.core.privacy.units import Units
from llmchain_fl.core.tasks.base import Examples, joined

Mark = tuple[bytes, int, int]
"""What makes two records of different files the same one: tokens, target, and which of its owner's equal ones it is."""


def chosen(key: bytes, run: str, stage: str, records: SiteRecords, keep: float) -> Mask:
    """Which units of an earlier stage are kept in ``run``: HMAC-SHA256 under the site's key, below ``keep``.

    Units without names go by what their first record says, equal ones together: told apart by their place in the file,
    one record more or less would move the places of the others, and so who is kept.

    Args:
        key: secret of the site; whoever has it knows who was kept.
        run: keeps the choices of two runs independent; empty in one without privacy, which is repeatable.
        stage: an earlier stage.
        records: those of that stage.
        keep: chance of each unit.
    """
    names = records.names or tuple(f"{tokens.hex()} {target}" for tokens, target, _ in _owners(records))
    digests = (hmac.digest(key, f"{run}\n{stage}\n{name}".encode(), hashlib.sha256) for name in names)
    return np.array([int.from_bytes(value[:8], "big") < keep * 2**64 for value in digests], dtype=bool)


def marks(records: SiteRecords) -> list[Mark]:
    """The mark of each record, in order. Equal records are counted for each named owner apart: who else has one like it
    must not matter; where nobody has a name they are counted over the file."""
    owner = dict.fromkeys(range(records.examples.records), -1)
    if records.names:
        owner |= {int(record): u for u, unit in enumerate(records.units.members) for record in unit}
    seen: Counter[tuple[int, bytes, int]] = Counter()
    marks: list[Mark] = []
    examples = records.examples
    for record in range(examples.records):
        content = _content(examples, examples.rows_of([record]))
        marks.append((*content, seen[owner[record], *content]))
        seen[owner[record], *content] += 1
    return marks


def _content(examples: Examples, rows: NDArray[np.int64]) -> tuple[bytes, int]:
    """What the rows of a record hold: tokens, notes and all targets in a digest; the first target beside it."""
    if len(rows) == 1 and not examples.notes:
        return hashlib.sha256(examples.ids[rows[0]].tobytes()).digest(), int(examples.targets[rows[0]])
    hasher = hashlib.sha256()
    for row in rows:
        for part in (examples.ids[row], examples.targets[row : row + 1], *examples.notes[row : row + 1]):
            hasher.update(len(part).to_bytes(8, "big") + part.tobytes())
    return hasher.digest(), int(examples.targets[rows[0]])


def _owners(records: SiteRecords) -> list[Mark]:
    """Who is behind each unit without a name: the mark of its first record."""
    known = marks(records)
    return [known[int(unit[0])] for unit in records.units.members]


def mixed(parts: Sequence[Part], allowed: Sequence[Mask]) -> tuple[Examples, Units]:
    """All records one after the other, and whose they are: one unit for each person, whatever the stages.

    Args:
        parts: the stage that is taught now first, then the stages to rehearse.
        allowed: for each of them which units may take part in this round.
    """
    count = 0
    members: dict[object, dict[Mark, int]] = {}
    for part, may in zip(parts, allowed, strict=True):
        records, known = part.records, marks(part.records)
        owners: Sequence[object] = records.names or _owners(records)
        for owner, unit, takes in zip(owners, records.units.members, part.kept & may, strict=True):
            if takes:
                own = members.setdefault(owner, {})
                for record in unit:
                    own.setdefault(known[int(record)], count + int(record))
        count += records.examples.records
    units = Units(tuple(np.array(sorted(own.values()), dtype=np.int64) for own in members.values()))
    return joined([part.records.examples for part in parts]), units
