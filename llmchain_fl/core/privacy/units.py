"""Which records belong to one privacy unit, and which of them a step uses.

The guarantee holds for a *unit*: a record, or a person with all of that person's records at the site. Poisson sampling
draws units, clipping bounds what one unit adds (user-level sampling, Charles et al. 2024, arXiv 2407.07737, section 3).
Records, not units, as the thing that is sampled and clipped would protect somebody with 8 records far less than the
printed epsilon says (epsilon 4.8 for one record is about 64 for eight).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.privacy.noise import Uniform
from llmchain_fl.core.privacy.sampling import poisson_batches

Batch = list[NDArray[np.int64]]
"""One step: for each drawn unit the numbers of its records, none of them twice."""


@dataclass(frozen=True)
class Units:
    """``members[u]``: the records of unit u, ascending; every record is in exactly one unit."""

    members: tuple[NDArray[np.int64], ...]

    def __len__(self) -> int:
        return len(self.members)

    @classmethod
    def of_records(cls, count: int) -> Units:
        """Each record is a unit."""
        return cls(tuple(np.arange(count, dtype=np.int64).reshape(count, 1)))

    @classmethod
    def of_people(cls, people: Sequence[str]) -> Units:
        """One unit for each different name in ``people`` (one name for each record), in order of first appearance."""
        by_person: dict[str, list[int]] = {}
        for record, person in enumerate(people):
            by_person.setdefault(person, []).append(record)
        return cls(tuple(np.array(records, dtype=np.int64) for records in by_person.values()))

    def kept(self, take: Sequence[bool] | NDArray[np.bool_]) -> Units:
        """The units u with ``take[u]``; the records of the others are in no unit any more."""
        return Units(tuple(records for records, stays in zip(self.members, take, strict=True) if stays))

    def batches(self, rate: float, steps: int, most: int, uniform: Uniform) -> Iterator[Batch]:
        """Poisson batches of units, at most ``most`` records of each.

        ==============================  ========================================================================
        case                            result
        ==============================  ========================================================================
        a unit with <= ``most`` records  all of them
        a unit with more                 a uniform draw of ``most`` without replacement, anew at each step
        nobody is drawn                  an empty batch: the step happens
        ==============================  ========================================================================

        ``rate``: q, chance of each unit at each step. ``most``: ``PrivacyPlan.records_per_unit``. ``uniform``: source
        of all draws, secret for a private run.

        Raises:
            PrivacyError: ``rate`` outside (0, 1], at the call.
        """
        drawn = poisson_batches(len(self), rate, steps, uniform)
        return ([_at_most(self.members[int(unit)], most, uniform) for unit in units] for units in drawn)


def same_person(name: str) -> str:
    """One spelling for one person: compatibility forms, blanks at the ends and case do not make somebody new.

    Two persons taken for one are protected together; one taken for two would be protected too little.
    """
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _at_most(records: NDArray[np.int64], most: int, uniform: Uniform) -> NDArray[np.int64]:
    if len(records) <= most:
        return records
    return np.sort(records[np.argsort(uniform(len(records)), kind="stable")[:most]])
