"""Noised scores: is their noise of the size that is paid for, new every time, and one person one vote?"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.scores import play_scores
from llmchain_fl.core.privacy.charges import at_site, score_charge
from llmchain_fl.core.privacy.groups import HELD_OUT, site_group
from llmchain_fl.core.privacy.release import Release
from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.privacy.audit import noise_law
from llmchain_fl.privacy.audit.conformance import equal_counts
from llmchain_fl.privacy.audit.finding import Finding, judge
from llmchain_fl.replies import Scores, read_reply
from simulations.audit.effort import Effort
from simulations.audit.practice import Floats, PracticeSite, names, one_hot, plan_for
from simulations.audit.seeds import same_seeds

PEOPLE = 400
SCORE = 0.95
"""Far from 1/2, so that the noise on the number of votes counts as much as that on their sum."""
FAINT = 0.1
"""Noise multiplier under which nobody's score is far from 0 and 1."""


def scores(folder: Path, effort: Effort) -> list[Finding]:
    """Two rounds of many scores each of the same people, seeds set alike; then one person with 8 records, or without.

    Released is 1/2 + s1 / (2 s2) with noise of std e = z sqrt(1/2) on both; for n people who all score a, that is a
    with noise of std e sqrt(1 + (2 a - 1)^2) / n (first order; the next term is a part of (2 e / n)^2).
    """
    site = _voters(folder, "votes", np.full(PEOPLE, SCORE), 1.0, 1)
    rounds = []
    for number in (1, 2):
        with same_seeds():
            rounds.append(_ask(site, number, effort.scores))
    std = math.sqrt(0.5 * (1 + (2 * SCORE - 1) ** 2)) / PEOPLE
    events = site.ledger.spent().events
    booked = sum(event.steps for event in events if (event.kind, event.noise_multiplier) == ("gaussian", 1.0))
    return [
        noise_law.noise_size(np.concatenate(rounds) - SCORE, std, name="noise of scores"),
        noise_law.noise_reuse([values - SCORE for values in rounds], name="noise re-use in scores"),
        equal_counts("scores on record", 2 * effort.scores, booked, "Scores that left against scores paid for."),
        _one_vote(folder, "one person, one vote", np.zeros(8)),
        _one_vote(folder, "a vote beyond 1", np.full(8, 1e9)),
        _one_vote(folder, "a vote below 0", np.full(8, -1e9)),
        _one_vote(folder, "a vote that is no number", np.array([0.0, np.nan, np.inf, -np.inf])),
        *_nobody(folder),
    ]


def _nobody(folder: Path) -> list[Finding]:
    """A site without records: its scores are 1/2 and noise, new each time."""
    site = _voters(folder, "nobody", np.zeros(0), FAINT, 0)
    rounds = [_ask(site, number, 100) - 0.5 for number in (1, 2)]
    return [
        noise_law.noise_size(np.concatenate(rounds), FAINT * math.sqrt(0.5), name="nobody's score"),
        noise_law.noise_reuse(rounds, name="nobody's score again"),
    ]


def _one_vote(folder: Path, name: str, votes: Floats) -> Finding:
    """A person with ``votes`` joins a crowd half of which vote 1."""
    others, noise = np.arange(50, dtype=np.float64) % 2, 1e-3
    crowd = _voters(folder / name, "crowd", others, noise, 1)
    joined = _voters(folder / name, "joined", np.append(others, votes), noise, len(votes))
    change = abs(float(_ask(crowd, 1, 1)[0]) - float(_ask(joined, 1, 1)[0])) * len(others)
    words = "Change of a score by one person with several records, as a share of one person's vote; noise almost off."
    return judge(name, change, (0.0, 1.02), words)


def _voters(folder: Path, name: str, values: Floats, noise: float, last_has: int) -> PracticeSite:
    """A site whose records score ``values``; the last ``last_has`` of them are of one person."""
    people = len(values) - last_has
    owners = [*names(people), *[f"person-{people}"] * last_has]
    plan = replace(plan_for(1.0, 1.0), score_noise=noise)
    site = PracticeSite(folder, name, one_hot(len(values), max(2, len(values)), 0.0), owners, plan)
    site.task.votes = values
    return site


def _ask(site: PracticeSite, number: int, count: int) -> Floats:
    """The noised scores of ``count`` stages that all have the site's records."""
    stages = tuple(f"stage-{i}" for i in range(count))
    arrays = site.task.arrays(np.zeros(site.width))
    task = ScoreTask(number, stages, site.work.to_json(), arrays, run="gate", federation="gate")
    group = site_group(HELD_OUT, site.name)
    charges = at_site([score_charge(site.plan, count)], site.name, named=True)
    release = Release(task.key, charges, site.plan.digest(), "scores", task.federation, stages[-1])
    held_out = dict.fromkeys(stages, (group, site.parts[0].records))
    reply = read_reply(play_scores(site.ledger, task, site.plan, site.task, release, held_out))
    values = reply.values if isinstance(reply, Scores) else {}
    return np.array([values.get(stage, math.nan) for stage in stages])
