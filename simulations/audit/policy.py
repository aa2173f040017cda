"""The data holder's own rules: work that the site file does not allow is refused, and the log quotes no record."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from client.limits import SiteLimits
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.privacy.audit.conformance import equal_counts, never
from llmchain_fl.privacy.audit.finding import Finding
from llmchain_fl.replies import Refusal, read_reply
from simulations.audit.effort import Effort
from simulations.audit.own_people import CROWD
from simulations.audit.own_run import FIRST, SECOND, Setting, small
from simulations.audit.own_scores import HELD_OUT, score_task
from simulations.audit.own_site import OwnSite, made_up_rows
from simulations.audit.replies import Seen

CANARY = "Jane-Canary-1970"
"""Stands in every record of a site whose log is read."""
LIMITS = SiteLimits(max_steps=50, max_rank=8, max_tokens=64, max_labels=3, max_public=4, max_stages=2, max_message_mb=1)
"""Of the site: defaults, and caps just above the plain task."""
Ask = TrainTask | ScoreTask


def _task(work: WorkSpec) -> TrainTask:
    plain = Setting(small())
    return replace(plain.task(1, 1e-3), work=work.to_json())


def _plain(**settings: object) -> Callable[[], Ask]:
    return lambda: _task(small(**settings))  # type: ignore[arg-type]


def _many_labels() -> Ask:
    work = small()
    return _task(replace(work, task=replace(work.task, labels=(*work.task.labels, ("other", "why")))))


def _scores() -> Ask:
    setting = Setting(small(score_noise=1.0))
    return score_task(setting, setting.arrays())


AGAINST: Mapping[str, Callable[[], Ask]] = MappingProxyType(
    {
        "no privacy": lambda: _task(replace(small(), plan=None)),
        "no noise": _plain(noise_multiplier=0.0),
        "unit record": _plain(unit="record", records_per_unit=1),
        "a larger delta": _plain(delta=1e-3),
        "scores": _scores,
        "too many steps": _plain(steps=51),
        "too large a rank": lambda: _task(replace(small(), adapter=replace(small().adapter, rank=9))),
        "too long texts": lambda: _task(replace(small(), task=replace(small().task, max_tokens=65))),
        "too many labels": _many_labels,
        "too many stages": lambda: replace(_task(small()), earlier=("a", "b", "c")),
    }
)
"""what the policy does not allow -> a task."""


def policy(folder: Path, effort: Effort) -> list[Finding]:
    """Work against the policy; the plain task, which it allows; and what the site wrote into its log meanwhile."""
    seen = Seen()
    site = OwnSite(folder / "strict", seen)
    site.site = site.site.model_copy(update={"limits": LIMITS})
    rows = [{**row, "text": f"{row['text']} {CANARY}"} for row in made_up_rows(small().task, CROWD)]
    site.write(SECOND, [*rows, {**rows[0], "label": f"hiv {CANARY}"}, {**rows[0], "text": ""}])
    site.write(FIRST, rows, HELD_OUT).spoil(SECOND, f'{{"text": "{CANARY}')
    with _Log() as log:
        done = [name for name, make in AGAINST.items() if not _refused(site, make())]
        booked = site.booked()
        allowed = not _refused(site, _task(small()))
    return [
        never("work against the policy", len(done), f"Of {len(AGAINST)} tasks: {', '.join(done) or 'none'}."),
        never("paid for work against the policy", booked, "Reservations."),
        equal_counts("work that the policy allows", 1, allowed, "The plain task."),
        never("records in the log", log.quoted, f"Lines, of {log.lines}, that quote a record."),
        equal_counts("lines in the log", 1, log.lines > 0, "A site that leaves records out says so to itself."),
        seen.finding("policy"),
    ]


def _refused(site: OwnSite, task: Ask) -> bool:
    reply = site.score(task) if isinstance(task, ScoreTask) else site.train(task)
    return isinstance(read_reply(reply), Refusal)


class _Log(logging.Handler):
    """Counts the lines of the site's log, and those that quote a record."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = self.quoted = 0
        self._log = logging.getLogger("llmchain_fl.client")

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        self.lines += 1
        self.quoted += CANARY in record.getMessage() or CANARY in str(record.exc_info)

    def __enter__(self) -> _Log:
        self._before = (self._log.level, self._log.propagate)
        self._log.setLevel(logging.DEBUG)
        self._log.propagate = False
        self._log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self)
        self._log.setLevel(self._before[0])
        self._log.propagate = self._before[1]
