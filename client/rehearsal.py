"""Guard ``rehearsal``: some of the persons of earlier stages are trained on again (experience replay).

Each unit of an earlier stage is kept with probability ``keep``, once and for the whole run, by a keyed hash of whose it
is: never by loss, by label or by how typical it is (herding would let one person decide over others). What is kept
stays where it was, in the site's own file of that stage; nothing is copied. In a step a kept unit is drawn with the
same probability q as everybody, and a person who is in both stages is one unit with the records of both.

Cost (``privacy/charges.py``): the group of every rehearsed stage pays for the round as if it were training, kept or
not. With ``privacy.stages = "shared"`` everybody pays for every round anyway, so it adds nothing; with ``disjoint`` the
first stage pays for all rounds that follow, and the noise is calibrated to that.

====================================  ====================================================
case                                  result
====================================  ====================================================
keep = 0                              the current stage alone
keep = 1                              all units of all earlier stages
the site has no file of that stage    left out; its group pays all the same (a public rule)
asked again for the same round        the same units are kept
====================================  ====================================================
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.dataset import SiteRecords
from llmchain_fl.privacy.units import Units
from llmchain_fl.tasks.base import Examples

GUARD = "rehearsal"


@dataclass(frozen=True)
class Part:
    """The records of one stage, and which of its units may take part."""

    stage: str
    records: SiteRecords
    allowed: NDArray[np.bool_]


def chosen(key: bytes, run: str, part: Part, keep: float) -> NDArray[np.bool_]:
    """Which units of ``part`` are kept in ``run``: HMAC-SHA256 under the site's key, below ``keep``.

    Args:
        key: secret of the site; whoever has it knows who was kept.
        run: keeps the choices of two runs independent.
        part: an earlier stage.
        keep: chance of each unit.
    """
    names = part.records.names or tuple(map(str, range(len(part.records.units))))
    told = (hmac.digest(key, f"{run}\n{part.stage}\n{name}".encode(), hashlib.sha256) for name in names)
    return np.array([int.from_bytes(value[:8], "big") < keep * 2**64 for value in told], dtype=bool)


def mixed(current: Part, earlier: Sequence[Part], kept: Sequence[NDArray[np.bool_]]) -> tuple[Examples, Units]:
    """All records one after the other, and whose they are: one unit for each person, whatever the stages.

    Args:
        current: the stage that is taught now; all its allowed units.
        earlier: the stages to rehearse.
        kept: for each of them which units were kept.
    """
    ids: list[NDArray[np.int64]] = []
    targets: list[NDArray[np.int64]] = []
    members: dict[object, list[NDArray[np.int64]]] = {}
    taken = [current.allowed, *(part.allowed & stays for part, stays in zip(earlier, kept, strict=True))]
    for number, (part, takes) in enumerate(zip([current, *earlier], taken, strict=True)):
        start, records = len(ids), part.records
        owners: Sequence[object] = records.names or [(number, unit) for unit in range(len(records.units))]
        for owner, unit, stays in zip(owners, records.units.members, takes, strict=True):
            if stays:
                members.setdefault(owner, []).append(unit + start)
        ids += records.examples.ids
        targets.append(records.examples.targets)
    return Examples(ids, np.concatenate(targets)), Units(tuple(np.concatenate(parts) for parts in members.values()))
