"""What a score is to be read against, measured on the same public records.

=========================================  ====================================================================
row                                        what
=========================================  ====================================================================
majority, chance (scope baseline)          whoever always answers the most frequent label; a uniform guess
untrained (scope baseline)                 the start of the adapter on records kept for the end
macro_f1, recall (with ``label``)          at stage ends: each label by itself
change_untrained                           the main score now minus that before any training
change_previous                            ... minus that at the end of the stage before
change_taught                              ... minus that at the end of the task's own stage
=========================================  ====================================================================

A change is positive where it is better, and has the half-width of its 95 % interval from the same records beside it
(``evaluation/margin.py``). Before each name stands ``test_`` where the records were kept for the end. Which record was
answered rightly is a part of the run's state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.tasks.metric import SHARE, Metric
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.evaluation.answered import Answered
from llmchain_fl.evaluation.labels import chance_level, macro_f1, majority_share, recalls
from llmchain_fl.evaluation.margin import paired_change, share_half_width
from llmchain_fl.metrics_file import declaration
from server.scoring import Scorer

Row = dict[str, Any]
BASELINE = "baseline"
"""Scope of rows that no adapter of the run made, or none that was trained."""
UNTRAINED, PREVIOUS, TAUGHT = "untrained", "previous", "taught"
LATEST = "latest"
"""At the end of the stage that ended last: what is previous to the next one."""
KEPT_APART = "test_"


def share_row(name: str, value: float, n: int, **more: Any) -> Row:
    """A number between 0 and 1 of ``n`` records, more is better."""
    margin = share_half_width(value, n)
    return {"metric": name, "value": value, "n": n, "half_width": margin, **declaration(_share(name)), **more}


def _share(name: str) -> Metric:
    return Metric(name, "higher", SHARE, 1.0)


class References:
    """Rows of one run, and the answers that its changes are counted from."""

    def __init__(self, scorer: Scorer, task: TaskSpec) -> None:
        self._scorer, self._task = scorer, task
        self._main = scorer.main
        self._scores: dict[tuple[str, str], dict[str, NDArray[np.float64]]] = {}
        """(set, reference) -> stage -> main score of each record."""
        self._ended = ""
        """The stage that ended last. In an extended run it may go on, and end again."""

    def start(self, arrays: Arrays) -> list[Row]:
        """Before any training; ``arrays``: the start of the adapter."""
        scorer, rows = self._scorer, list[Row]()
        for which, prefix in {
            scorer.each_round: "",
            **({"test": KEPT_APART} if scorer.only_at_the_end else {}),
        }.items():
            answers = scorer.answered(arrays, which)
            self._keep(which, UNTRAINED, answers)
            base = {"round": 0, "stage": -1, "scope": BASELINE, "site": None}
            for task, one in answers.items():
                rows += [{**base, "task": task, **row} for row in self._without_a_model(task, one, prefix)]
                if prefix and one.scores is not None:
                    row = share_row(prefix + UNTRAINED, float(np.mean(one.scores)), one.size)
                    rows.append({**base, "task": task, **row, **declaration(self._main)})
        return rows

    def extended(self, start: Arrays, now: Arrays) -> list[Row]:
        """Where an extension adds stages: as ``start``, and what the adapter in service, ``now``, answers already."""
        rows = self.start(start)
        self._keep(self._scorer.each_round, LATEST, self._scorer.answered(now, self._scorer.each_round))
        return rows

    def stage(self, number: int, stage: int, name: str, arrays: Arrays) -> list[Row]:
        """At the end of stage ``name``; ``arrays``: in service now."""
        which = self._scorer.each_round
        answers = self._scorer.answered(arrays, which)
        base = {"round": number, "stage": stage, "scope": "global", "site": None}
        if name != self._ended and (which, LATEST) in self._scores:
            self._scores[which, PREVIOUS] = self._scores.pop((which, LATEST))
        if name == self._ended:
            self._scores.get((which, TAUGHT), {}).pop(name, None)
        self._ended = name
        rows = [row for task, one in answers.items() for row in self._rows(base, task, one, which, "")]
        self._keep(which, LATEST, answers)
        self._keep(which, TAUGHT, {task: one for task, one in answers.items() if task == name})
        return rows

    def final(self, number: int, stage: int, arrays: Arrays) -> list[Row]:
        """On the records that were kept for the end."""
        base = {"round": number, "stage": stage, "scope": "global", "site": None}
        answers = self._scorer.answered(arrays, "test")
        return [row for task, one in answers.items() for row in self._rows(base, task, one, "test", KEPT_APART)]

    def state(self) -> dict[str, Any]:
        """What must survive a restart: scores by set, reference and stage."""
        by_set: dict[str, dict[str, dict[str, NDArray[np.float64]]]] = {}
        for (which, reference), scores in self._scores.items():
            by_set.setdefault(which, {})[reference] = dict(scores)
        return {"scores": by_set, "ended": self._ended}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        by_set: Mapping[str, Mapping[str, dict[str, NDArray[np.float64]]]] = state["scores"]
        self._scores = {(which, name): dict(scores) for which, each in by_set.items() for name, scores in each.items()}
        self._ended = state["ended"]

    def _keep(self, which: str, reference: str, answers: Mapping[str, Answered]) -> None:
        scores = self._scores.setdefault((which, reference), {})
        scores |= {task: one.scores for task, one in answers.items() if one.scores is not None}

    def _without_a_model(self, task: str, one: Answered, prefix: str) -> list[Row]:
        if one.answers is None:
            return []
        candidates = dict(self._task.candidate_labels).get(task)
        chance = chance_level(len(self._task.labels if candidates is None else candidates))
        rows = [share_row(prefix + "majority", majority_share(one.targets), one.size)]
        return [*rows, {"metric": prefix + "chance", "value": chance, "n": one.size, **declaration(_share("chance"))}]

    def _rows(self, base: Row, task: str, one: Answered, which: str, prefix: str) -> list[Row]:
        rows = list[Row]()
        if one.answers is not None:
            score = macro_f1(one.targets, one.answers)
            rows.append(
                {"metric": prefix + "macro_f1", "value": score, "n": one.size, **declaration(_share("macro_f1"))}
            )
            counts = np.bincount(one.targets)
            rows += [
                share_row(prefix + "recall", value, int(counts[label]), label=self._task.labels[label][0])
                for label, value in recalls(one.targets, one.answers).items()
            ]
        rows += self._changes(task, one, which, prefix)
        return [{**base, "task": task, **row} for row in rows]

    def _changes(self, task: str, one: Answered, which: str, prefix: str) -> list[Row]:
        rows = list[Row]()
        for reference in (UNTRAINED, PREVIOUS, TAUGHT):
            before = self._scores.get((which, reference), {}).get(task)
            if before is not None and one.scores is not None:
                change = paired_change(before, one.scores)
                metric = Metric(f"{prefix}change_{reference}", "higher", self._main.unit)
                row = {"metric": metric.name, "value": self._main.sign * change.value, "half_width": change.half_width}
                rows.append({**row, "n": one.size, **declaration(metric), "of": self._main.name})
        return rows
