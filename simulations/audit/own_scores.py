"""Noised scores of a real model through a whole site: one person, one vote, whoever and whatever stands beside it.

With the noise almost off the score of n people with votes a_i is their mean; with one more, of vote v, it must be
(n a + v) / (n + 1). Each vote is read from a site where that person is alone. A person whose records cannot be computed
has no vote (the site's score is 1/2 then) and takes nobody else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flwr.app import RecordDict

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.privacy.audit.conformance import equal_counts
from llmchain_fl.privacy.audit.finding import Finding, judge
from llmchain_fl.replies import Scores, read_reply
from simulations.audit.effort import Effort
from simulations.audit.hostile_arrays import ARRAYS
from simulations.audit.own_people import PEOPLE, Rows
from simulations.audit.own_reading import for_people
from simulations.audit.own_run import SECOND, Setting
from simulations.audit.own_site import OwnSite, made_up_rows
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

        votes = [mean([row]) for row in crowd]
        gaps[f"nobody more, {kind}"] = _gap(mean(crowd), votes)
        for name, make in PEOPLE.items():
            rows = make(spec)
            gaps[f"{name}, {kind}"] = _gap(mean([*crowd, *rows]), [*votes, mean(rows)])
    return [
        _judged(f"votes ({setting.name})", gaps),
        _booked(folder / "booked", noiseless, seen),
        seen.finding(f"scores, {setting.name}"),
    ]


def _gap(score: float, votes: Sequence[float]) -> float:
    """How far ``score`` is from the mean of ``votes``, in votes; 1/2 is that of somebody who has none."""
    cast = [vote for vote in votes if not abs(vote - 0.5) < NOISE * 100]
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
