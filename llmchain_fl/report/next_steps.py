"""What to do after a run: suggestions that follow from its numbers, the most pressing first."""

from __future__ import annotations

import math

from llmchain_fl.report import references
from llmchain_fl.report.readings import Readings
from llmchain_fl.report.spending import Spending
from llmchain_fl.report.tables import drops

ENOUGH = 400
"""Records of a task whose score has a margin of about 5 points at worst."""


def next_steps(run: Readings, spending: Spending) -> tuple[str, bool | None, list[str]]:
    """The first suggestion, an open mark, and the others.

    ===========================================  ==================================================
    the run                                      suggestion
    ===========================================  ==================================================
    stopped, or its last stage not finished      go on with it, or start a new one
    a site is over its target                    do not release the adapter before its owner agrees
    the closed-form head is clearly better       use that, or give the head more to work with
    an earlier stage is clearly below its best   another guard
    a task has few held-out records              more of them: nothing can be told from so few
    no privacy, and updates leave sites          privacy plan
    anything else                                try it on texts of your own
    ===========================================  ==================================================
    """
    steps: list[str] = []
    if run.stopped is not None:
        steps.append("Its budget ended before its plan did: a larger budget needs a new run.")
    elif run.unfinished:
        steps.append("Its last stage is not finished: `llmchain-fl simulate --resume RUN` goes on where it stopped.")
    if any(spending.over(site) for site in spending.sites):
        steps.append("A site is over its target: let its owner decide before the adapter goes anywhere.")
    head = references.against(run).get(references.RIDGE_ALL)
    if head is not None and head.clear < 0:
        steps.append("A closed-form head on the frozen base does better: use that, or train longer first.")
    if any(drop.clear < 0 for _, drop in drops(run)):
        steps.append("An earlier stage is clearly below its best: compare guards (`llmchain-fl compare --continual`).")
    counts = [n for task in run.begun if (n := run.records(task))]
    if counts and min(counts) < ENOUGH:
        steps.append(f"Score on more held-out records: {min(counts)} is few, {ENOUGH} give a margin of some 7 points.")
    if not spending.private and run.sites:
        steps.append("Before real records are used: `llmchain-fl privacy plan SCENARIO` says what privacy would cost.")
    if run.now.there and math.isfinite(run.now.value):
        steps.append("Try it on texts of your own: `llmchain-fl predict RUN`.")
    first, *others = steps or ["Run it: nothing has been scored yet."]
    return first, None, others
