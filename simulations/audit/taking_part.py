"""Who may take part, seen in what leaves a whole site: stages, held-out people, budgets of single people, rehearsal.

All rounds are read without noise (``own_reading.py``): a sum of nobody is noise alone, that of one person has norm C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.privacy.audit.conformance import ROUNDING, never
from llmchain_fl.privacy.audit.finding import Finding, judge
from simulations.audit.effort import Effort
from simulations.audit.own_reading import RATE, Sums, apart, for_people, sums_of
from simulations.audit.own_run import FIRST, REHEARSAL, SECOND, Setting, small
from simulations.audit.own_scores import HELD_OUT, score_of, score_task
from simulations.audit.own_scores import NOISE as SCORE_NOISE
from simulations.audit.own_site import OwnSite, Watched, made_up_rows
from simulations.audit.replies import Seen

CROWD = ("ann", "bob", "bob", "eve")
AS_NOISE = 1e-4
"""A sum below this share of C is nobody's."""


class Course:
    """Rounds of one site, one after the other, under one plan."""

    def __init__(
        self, folder: Path, setting: Setting, seen: Seen, *, one_file: bool = False, alone: bool = False
    ) -> None:
        self.site = OwnSite(folder, seen, one_file=one_file, alone=alone)
        self.setting, self._rounds = setting, 0
        self._arrays = moved(setting)

    def size(self, stage: str, earlier: Sequence[str] = ()) -> float:
        """Norm of the sum of the next round, in units of C; NaN where the site refused."""
        sums = self.sums(stage, earlier)
        return np.nan if sums is None else sums.size

    def sums(self, stage: str, earlier: Sequence[str] = ()) -> Sums | None:
        """The sum behind the next round."""
        self._rounds += 1
        task = self.setting.task(self._rounds, RATE, self._arrays, stage=stage, earlier=tuple(earlier))
        return sums_of(self.site.train(task), self.setting, self._arrays)

    def score(self, stage: str) -> float:
        """The noised score of the next round."""
        self._rounds += 1
        return score_of(self.site.score(score_task(self.setting, self._arrays, (stage,), self._rounds)), stage)


def moved(setting: Setting) -> Arrays:
    """An adapter under which every record has a gradient."""
    draw = np.random.default_rng(2)
    return {n: (v + draw.normal(0, 0.1, v.shape)).astype(np.float32) for n, v in setting.arrays().items()}


def taking_part(folder: Path, effort: Effort) -> list[Finding]:
    """Stages that exclude each other, held-out people, and people whose own budget is used up."""
    seen = Seen()
    disjoint = for_people(Setting(small(stages="disjoint")), score_noise=SCORE_NOISE)
    wrong = _stages(folder / "stages", disjoint, seen) + _held_out(folder / "held-out", disjoint, seen)
    words = (
        "Rounds in which somebody took part who belongs to another stage or to the held-out records, or was missing."
    )
    return [
        never("others' people in a round", wrong, words),
        *_own_budget(folder / "own-budget", seen),
        seen.finding("taking part"),
    ]


def _stages(folder: Path, setting: Setting, seen: Seen) -> int:
    """ann, bob and eve are met in the first stage; the second has them again, then one new person beside them."""
    course, spec = Course(folder, setting, seen), setting.work.task
    rows = made_up_rows(spec, CROWD)
    course.site.write(FIRST, rows).write(SECOND, rows)
    first, second = course.size(FIRST), course.size(SECOND)
    course.site.write(SECOND, [*rows, *made_up_rows(spec, ["new"], seed=4)])
    third, again = course.size(SECOND), course.size(FIRST)
    return sum(
        [
            not first > 1,
            not second < AS_NOISE,
            not abs(third - 1) < 1e-3,
            not abs(again - first) < 1e-3,
        ]
    )


def _held_out(folder: Path, setting: Setting, seen: Seen) -> int:
    """kim and lea are scored first, then they stand among the training records; ann is trained on, then held out."""
    course, spec = Course(folder, setting, seen), setting.work.task
    course.site.write(FIRST, made_up_rows(spec, ["kim"]), HELD_OUT)
    scored = course.score(FIRST)
    course.site.write(FIRST, made_up_rows(spec, [" Kim"])).write(SECOND, made_up_rows(spec, ["ann"]))
    trained, other = course.size(FIRST), course.size(SECOND)
    course.site.write(SECOND, made_up_rows(spec, ["ANN"]), HELD_OUT)
    voted = course.score(SECOND)
    return sum(
        [
            not min(abs(scored), abs(scored - 1)) < 1e-3,
            not trained < AS_NOISE,
            not abs(other - 1) < 1e-3,
            not abs(voted - 0.5) < 1e-3,
        ]
    )


def _own_budget(folder: Path, seen: Seen) -> list[Finding]:
    """Two data sets of one site, each within the limit, together above it: who is in both is left out of the second.

    Two sites pay the same; in one of them both data sets are of the same people. The server hears no difference.
    """
    setting = Setting(small(noise_multiplier=0.8, sampling_rate=1.0))
    replies, sizes = [], []
    for name, people in (("same", ["ann", "bob"]), ("others", ["kim", "lea"])):
        site = OwnSite(folder / name, seen, epsilon=8.0)
        spec = setting.work.task
        site.write(FIRST, made_up_rows(spec, ["ann", "bob"])).write(SECOND, made_up_rows(spec, people))
        task = setting.task(1, 1.0, stage=FIRST)
        first = site.train(task)
        site.take_data_set("another")
        watched = Watched()
        second = site.train(setting.task(2, 1.0, stage=SECOND), watched)
        replies.append([set(reply) for reply in (first, second)])
        sizes.append(watched.records)
    return [
        never("a refusal tells who is registered", replies[0] != replies[1], "Same releases, other people."),
        never("a person's own budget", sizes != [0, 2], "Records of people above the limit, or of others left out."),
    ]


def counted_once(folder: Path, effort: Effort) -> list[Finding]:
    """Rehearsal: the same record in several stages, in one file for all or copied, moves the sum once."""
    seen, moved_most = Seen(), 0.0
    for name, unit, alone, one_file in (
        ("one file", "person", True, True),
        ("records", "record", False, True),
        ("copies", "person", True, False),
        ("named", "person", False, False),
    ):
        setting = for_people(
            Setting(
                small(
                    guards=(REHEARSAL,), rehearsal="earlier", unit=unit, records_per_unit=32 if unit == "person" else 1
                )
            )
        )
        rows = made_up_rows(setting.work.task, ["ann", "bob", "eve"])
        extra = made_up_rows(setting.work.task, ["watched"], seed=5)
        sums = []
        for people in (rows, rows + extra):
            course = Course(folder / f"{name}-{len(people)}", setting, seen, one_file=one_file, alone=alone)
            for stage in ("all",) if one_file else (FIRST, "middle", SECOND):
                course.site.write(stage, people)
            sums.append(course.sums(SECOND, (FIRST, "middle")))
        moved_most = max(moved_most, np.inf if np.isnan(gap := apart(sums[1], sums[0])) else gap)
    words = "Change of the sum by one record that stands in three stages, over the clip norm."
    return [
        judge("counted once over stages", moved_most, (0.5, 1 + ROUNDING), words),
        _kept_by_a_secret(folder, seen),
        seen.finding("rehearsal"),
    ]


def _kept_by_a_secret(folder: Path, seen: Seen) -> Finding:
    """Two sites with the same 24 people keep others of them; the same site keeps the same ones in the next round."""
    half = replace(REHEARSAL, settings=(("keep", 0.5),))
    setting = for_people(Setting(small(guards=(half,), rehearsal="earlier")))
    rows = made_up_rows(setting.work.task, [f"person-{i}" for i in range(24)])
    sums = []
    for number in range(2):
        course = Course(folder / f"secret-{number}", setting, seen)
        course.site.write(FIRST, rows).write(SECOND, [])
        sums.append([course.sums(SECOND, (FIRST,)) for _ in range(2)])
    (one, again), (other, _) = sums
    wrong = (not apart(one, again) < AS_NOISE) + (not apart(one, other) > 0.5)
    return never("kept by a secret", wrong, "Sites that keep the same people as another one, or others each time.")
