"""What one person may do to the update of a real model, through a whole site: with hostile arrays and odd records.

Three sites play the same round: a crowd with the person, the crowd alone, the person alone. Everybody is drawn and the
noise is almost off (``own_reading.py``):

    | with - without |            <= C          one person moves the sum by one clipped contribution
    | with - without - alone |    =  0          and moves what nobody else adds

both up to float32's rounding of the sent numbers and the noise, which are bounded from the numbers themselves. Numbers
in which a hostile array leaves no room (1e38 plus a step is 1e38) cannot be read and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.privacy.audit.conformance import ROUNDING, never
from llmchain_fl.privacy.audit.finding import Finding, judge
from simulations.audit.effort import Effort
from simulations.audit.hostile_arrays import ARRAYS
from simulations.audit.own_reading import RATE, Sums, apart, for_people, sums_of
from simulations.audit.own_run import SECOND, Setting
from simulations.audit.own_site import LONG, OwnSite, Row, made_up_rows
from simulations.audit.replies import Seen

CROWD = ("ann", "bob", "bob", "eve", "eve", "eve", "kim", "lea", "max")
"""Whose the others' records are."""
TOLD = 1e4
"""A clip norm in the task, which is the server's word: it must not matter but for the unit site."""
BLIND = 0.9
"""An ordinary person whose contribution is smaller than this share of C would not be seen."""
Rows = list[dict[str, str]]


def _alike(count: int, names: Sequence[str]) -> Callable[[TaskSpec], Rows]:
    """So many records that are all the same, under names taken in turn."""

    def rows(spec: TaskSpec) -> Rows:
        (row,) = made_up_rows(spec, ["watched"], seed=5)
        return [{**row, "person": names[i % len(names)]} for i in range(count)]

    return rows


def _long(spec: TaskSpec) -> Rows:
    """A text that is cut at ``max_tokens``."""
    return made_up_rows(spec, ["watched"], seed=3, lengths=(LONG,))


def _some(spec: TaskSpec) -> Rows:
    return made_up_rows(spec, ["watched"] * 5, seed=6, lengths=(14, 6, 22, 3, 8))


PEOPLE: Mapping[str, Callable[[TaskSpec], Rows]] = MappingProxyType(
    {
        "5 records": _some,
        "a long text": _long,
        "20 records alike": _alike(20, ["watched"]),
        "one name, three spellings": _alike(6, ["Watched", "  watched ", "\uff37ATCHED"]),
    }
)
"""Who comes and goes."""
BROKEN: Mapping[str, Callable[[int], Sequence[int]]] = MappingProxyType(
    {
        "a token beyond the vocabulary": lambda positions: (1, 10**8, 2),
        "a negative token": lambda positions: (1, -7, 2),
        "a text beyond the positions": lambda positions: (1,) * (positions + 40),
    }
)
"""Records, as token ids, that hardly a base can read, by its positions: put into what the site holds in memory."""


class Rounds:
    """Plays one round of fresh sites under one setting and one set of arrays."""

    def __init__(self, folder: Path, setting: Setting, arrays: Arrays, seen: Seen) -> None:
        self._folder, self._setting, self._arrays, self._seen = folder, setting, arrays, seen
        self._played, self.paid_refusals = 0, 0

    def sums(self, rows: Sequence[Row], broken: Sequence[int] = ()) -> Sums | None:
        """Of a site with ``rows``; ``broken``: token ids that take the place of the last record's."""
        self._played += 1
        site = OwnSite(self._folder / f"site-{self._played}", self._seen).write(SECOND, rows)
        if broken:
            site.records(self._setting.work, SECOND).examples.ids[-1] = np.array(broken, dtype=np.int64)
        reply = site.train(self._setting.task(1, RATE, self._arrays, clip=TOLD))
        sums = sums_of(reply, self._setting, self._arrays)
        self.paid_refusals += site.booked() if sums is None else 0
        return sums


def own_people(folder: Path, effort: Effort, setting: Setting, kind: str) -> list[Finding]:
    """All kinds of people under one set of arrays (``ARRAYS[kind]``)."""
    seen, noiseless = Seen(), for_people(setting)
    rounds, spec = Rounds(folder, noiseless, ARRAYS[kind](noiseless), seen), noiseless.work.task
    crowd = made_up_rows(spec, CROWD)
    without, where = rounds.sums(crowd), f"{setting.name}, {kind} arrays"
    if without is None and kind != "ordinary":
        words = "Reservations for arrays that the site refuses, whoever is there."
        return [never(f"paid for a refusal ({where})", rounds.paid_refusals, words), seen.finding(where)]
    moved, beside, largest = {}, {}, 0.0
    for name, rows in _people(noiseless, effort).items():
        together, alone = rounds.sums([*crowd, *rows]), rounds.sums(rows)
        moved[name], beside[name] = apart(together, without), apart(together, without, alone)
        largest = max(largest, 0.0 if alone is None else alone.size)
    positions = int(getattr(noiseless.resident().base.module.config, "max_position_embeddings", 0) or 0)
    for name, make in BROKEN.items():
        rows, ids = made_up_rows(spec, ["watched"]), make(positions)
        beside[name] = apart(rounds.sums([*crowd, *rows], ids), without, rounds.sums(rows, ids))
    visible = judge(f"somebody is seen ({where})", largest, (BLIND, 1 + 1e-3), "An ordinary person's contribution.")
    return [
        _judged(f"neighbours ({where})", moved, 1.0, "Largest change of the sum by one person, over the clip norm"),
        _judged(f"others untouched ({where})", beside, 0.0, "Change of what all others add, over the clip norm"),
        *([visible] if kind == "ordinary" else []),
        seen.finding(where),
    ]


def _people(setting: Setting, effort: Effort) -> dict[str, Rows]:
    """With the unit record each of them has one record."""
    spec = setting.work.task
    people = {name: make(spec) for name, make in PEOPLE.items()}
    for number in range(effort.strangers):
        draw = np.random.default_rng(number)
        count = int(draw.integers(1, 9))
        lengths = [int(n) for n in draw.integers(1, 2 * spec.max_tokens, size=count)]
        people[f"stranger {number}"] = made_up_rows(spec, ["watched"] * count, seed=100 + number, lengths=lengths)
    return people if setting.plan.unit == "person" else {name: rows[:1] for name, rows in people.items()}


def _judged(name: str, changes: Mapping[str, float], most: float, words: str) -> Finding:
    worst = max(changes, key=lambda who: np.inf if np.isnan(changes[who]) else changes[who])
    return judge(name, changes[worst], (0.0, most + ROUNDING), f"{words}; {worst} moved most.")
