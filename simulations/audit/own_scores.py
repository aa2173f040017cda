"""Noised scores of a real model through a whole site: one person, one vote, whoever and whatever stands beside it.

With the noise almost off the score of n people with votes a_i is their mean; with one more, of vote v, it must be
(n a + v) / (n + 1). Each vote is read from a site where that person is alone. A person whose records cannot be computed
has no vote (the site's score is 1/2 then) and takes nobody else's.

A score that is made of counts is no mean. There it must be F1 of the sum of all people's counts, each clipped as one,
with the counts of each read from an encoding in which that person is alone. Made-up records of these kinds have no
right tag or label, so F1 is 0 unless the noise is wrong. Clipping of counts: tests/privacy/test_scores.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from flwr.app import RecordDict
from numpy.typing import ArrayLike

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.privacy.counts import f1_of
from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.core.tasks.passes import Shape
from llmchain_fl.core.work import open_work
from llmchain_fl.privacy.audit.conformance import equal_counts
from llmchain_fl.privacy.audit.finding import Finding, judge
from llmchain_fl.replies import Scores, read_reply
from simulations.audit.effort import Effort
from simulations.audit.hostile_arrays import ARRAYS
from simulations.audit.own_people import PEOPLE, Rows
from simulations.audit.own_reading import for_people
from simulations.audit.own_run import SECOND, Setting
from simulations.audit.own_site import OwnSite, made_up_rows
from simulations.audit.practice import Floats
from simulations.audit.replies import Seen

HELD_OUT = ".held-out"
NOISE = 1e-6
VOTERS = ("ann", "bob", "eve", "kim", "lea", "max")
"""The others: a record each, so that nobody's vote is 1/2."""
VOTE = 0.02
"""Allowed gap, as a share of one vote."""
KINDS = ("ordinary", "overflowing", "of no number")


def score_task(setting: Setting, arrays: Arrays, stages: Sequence[str] = (SECOND,), number: int = 1) -> ScoreTask:
    """What the server asks for after round ``number``."""
    return ScoreTask(number, tuple(stages), setting.work.to_json(), arrays, run="gate", federation="gate")


def score_of(reply: RecordDict, stage: str = SECOND) -> float:
    """The score in a reply, NaN where there is none."""
    answer = read_reply(reply)
    return answer.values.get(stage, np.nan) if isinstance(answer, Scores) else np.nan


def own_scores(folder: Path, effort: Effort, setting: Setting) -> list[Finding]:
    """Held-out people who come and go, under ordinary arrays and such that are finite or not by padding."""
    if setting.plan.unit != "person" or not setting.work.task.labels:
        return []
    noiseless, seen = for_people(setting, score_noise=NOISE), Seen()
    spec, gaps = noiseless.work.task, dict[str, float]()
    crowd = made_up_rows(spec, VOTERS)
    for kind in KINDS:
        arrays = ARRAYS[kind](noiseless)

        def mean(rows: Rows, sent: Arrays = arrays) -> float:
            site = OwnSite(folder / f"site-{seen.replies}", seen).write(SECOND, rows, HELD_OUT)
            return score_of(site.score(score_task(noiseless, sent)))

        counted = task_kind(spec.kind).counts > 0
        alone = partial(_counts, noiseless, arrays) if counted else mean
        each, gap = [alone([row]) for row in crowd], _gap_of_counts if counted else _gap
        for name, rows in {"nobody more": [], **{name: make(spec) for name, make in PEOPLE.items()}}.items():
            more = [alone(rows)] if rows else []
            gaps[f"{name}, {kind}"] = gap(mean([*crowd, *rows]), [*each, *more])
    return [
        _judged(f"votes ({setting.name})", gaps),
        _booked(folder / "booked", noiseless, seen),
        seen.finding(f"scores, {setting.name}"),
    ]


def _counts(setting: Setting, arrays: Arrays, rows: Rows) -> Floats:
    """(right, wrong, missed) of one person who is alone, clipped by our own arithmetic."""
    spec, bound = setting.work.task, task_kind(setting.work.task.kind).counts
    resident, task = setting.resident(), open_work(setting.work.resident, spec)[1]
    resident.reset()
    resident.load(arrays)
    examples = task.encode(rows)
    examples.fix(Shape(1, spec.max_tokens))
    counts = np.nan_to_num(task.record_counts(examples)).sum(axis=0)  # type: ignore[attr-defined]
    length = float(np.linalg.norm(counts))
    return np.asarray(counts * min(1.0, bound / length) if length else counts, dtype=np.float64)


def _gap_of_counts(score: float, counts: Sequence[ArrayLike]) -> float:
    """How far ``score`` is from F1 of the sum, in votes; 0 where nobody is counted: it is F1 of the noise then."""
    told = np.asarray(counts).sum(axis=0)
    return abs(score - f1_of(*told)) * len(counts) if told.any() else 0.0


def _gap(score: float, votes: Sequence[ArrayLike]) -> float:
    """How far ``score`` is from the mean of ``votes``, in votes; 1/2 is that of somebody who has none."""
    cast = [vote for vote in map(float, np.asarray(votes)) if not abs(vote - 0.5) < NOISE * 100]
    return abs(score - (float(np.mean(cast)) if cast else 0.5)) * max(1, len(cast))


def _judged(name: str, gaps: dict[str, float]) -> Finding:
    worst = max(gaps, key=lambda who: np.inf if np.isnan(gaps[who]) else gaps[who])
    words = f"How far a score with one person more is from the mean of all votes, in votes; {worst} is furthest."
    return judge(name, gaps[worst], (0.0, VOTE), words)


def _booked(folder: Path, setting: Setting, seen: Seen) -> Finding:
    """Two stages asked for, of which the site knows one: two releases."""
    site = OwnSite(folder, seen).write(SECOND, made_up_rows(setting.work.task, VOTERS), HELD_OUT)
    site.score(score_task(setting, setting.arrays(), (SECOND, "never-heard-of")))
    steps = sum(event.steps for event in site.spent().events)
    return equal_counts(f"scores on record ({setting.name})", 2, steps, "Scores that left against scores paid for.")
