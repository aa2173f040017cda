"""What the guards' server halves may look at in one round."""

from __future__ import annotations

from collections.abc import Iterable

from llmchain_fl.config.calendar import NONE, Ended, taught_in
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.guards.protocol import View
from server.privacy_book import known_noise
from server.schedule import ScheduledRound, as_guards_see
from server.scoring import Scorer


def view_of(
    config: RunConfig, work: WorkSpec, scorer: Scorer, planned: ScheduledRound, before: Arrays, ended: Ended = NONE
) -> View:
    """The view of round ``planned``, which began with the global arrays ``before``."""
    stage, stages, last = as_guards_see(config, planned)
    return View(
        round=planned.round,
        stage=stage,
        stages=stages,
        last=last,
        scale=work.adapter.scale,
        seed=config.seed,
        before=before,
        probe=scorer.probe,
        task=scorer.task,
        public=scorer.public,
        public_rows=scorer.public_rows,
        noise=known_noise(config, work.plan),
        labels=_labels(work, taught_in(config, planned.round, ended)),
    )


def _labels(work: WorkSpec, stages: Iterable[str]) -> tuple[int, ...]:
    labels_of = dict(work.task.stage_labels)
    return tuple(sorted({label for stage in stages for label in labels_of.get(stage, ())}))
