"""A made-up site in a temporary folder, asked as a server asks: through ``client.app.do_train`` and ``do_score``.

The practice site (``practice.py``) reads an update coordinate by coordinate, over a model that is no language model.
This one is a whole site: a file of records, a site's policy, a base, the ledger, the memory; what it says to a task is
what any site of this installation would say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from flwr.app import RecordDict

from client import outbox
from client.app import Watch, do_train
from client.dataset import Cache, SiteRecords, site_records
from client.limits import Unit
from client.scores import do_score
from client.site import Site, SiteData, SiteLimits
from client.training import LocalResult
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.privacy.accounting import Spent
from llmchain_fl.core.score_task import ScoreTask, read_score_task
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.wire import read_train_task
from llmchain_fl.core.work import WorkSpec, open_work
from llmchain_fl.requests import write_score_task, write_train_task
from simulations.audit.own_guards import STAGES, made_up_row
from simulations.audit.replies import Seen

Row = Mapping[str, str]
UNITS: list[Unit] = ["person", "record", "site"]
LENGTHS = (6, 2, 7, 11, 4, 6, 22, 9, 17)
"""Words of made-up texts. With the two ends of a text 6, 14 and 22 words fill a shape of 8, 16 and 24 tokens: they need
no padding. There are shapes that all of these texts leave open, some or none."""
LONG = 400
"""Words of a text that is cut at ``max_tokens``."""


class Held(Cache):
    """Records that stay in memory whatever their file is: checks change them there, and the file is seconds old."""

    def __delitem__(self, key: object) -> None:
        """Nothing is forgotten."""


class OwnSite:
    """A site whose files, policy and memory are in ``folder``; the same folder is the same site.

    Args:
        folder: made when missing.
        seen: takes note of every reply.
        epsilon: the site's limit; infinity only records.
        one_file: one file for all stages.
        alone: the site file says that no person has two records.
    """

    def __init__(
        self,
        folder: Path,
        seen: Seen,
        *,
        epsilon: float = math.inf,
        one_file: bool = False,
        alone: bool = False,
        name: str = "practice",
    ) -> None:
        self.folder, self.seen, self.kept = folder, seen, Held()
        folder.mkdir(parents=True, exist_ok=True)
        stage = "all" if one_file else "{stage}"
        data = SiteData(
            name=name,
            train=str(folder / f"{stage}.jsonl"),
            held_out=str(folder / f"{stage}.held-out.jsonl"),
            one_record_per_person=alone,
        )
        limits = SiteLimits(units=UNITS, scores="noised").model_copy(update={"epsilon": epsilon})
        self.site = Site(name=name, state=str(folder / "state"), data=data, limits=limits)

    def write(self, stage: str, rows: Sequence[Row], which: str = "") -> OwnSite:
        """The records of a stage; ``which``: ``.held-out`` or nothing."""
        lines = "".join(json.dumps(dict(row)) + "\n" for row in rows)
        (self.folder / f"{stage}{which}.jsonl").write_text(lines, encoding="utf-8")
        self.kept = Held()
        return self

    def spoil(self, stage: str, line: str) -> OwnSite:
        """A line that is no record, in front of the records of a stage."""
        file = self.folder / f"{stage}.jsonl"
        file.write_text(f"{line}\n{file.read_text(encoding='utf-8')}", encoding="utf-8")
        self.kept = Held()
        return self

    def take_data_set(self, name: str) -> None:
        """From here on the files hold another data set of the same site."""
        self._change(name=name)

    def say_alone(self, alone: bool) -> None:
        """From here on the site file says (or not) that no person has two records: units have no names then."""
        self._change(one_record_per_person=alone)

    def _change(self, **changes: object) -> None:
        self.site = self.site.model_copy(update={"data": self.site.data.model_copy(update=changes)})
        self.kept = Held()

    def train(self, task: TrainTask, watch: Watch | None = None) -> RecordDict:
        """The reply to ``task``, as it came over the wire."""
        try:
            reply = do_train(self.site, read_train_task(write_train_task(task)), self.kept, watch)
        except Exception as error:
            reply = outbox.refuse(error)
        return self.seen.update(task, reply)

    def score(self, task: ScoreTask) -> RecordDict:
        """The same of a score task."""
        content = write_score_task(task)
        try:
            reply = do_score(self.site, content, self.kept)
        except Exception as error:
            reply = outbox.refuse(error)
        return self.seen.scores(read_score_task(content), reply)

    def hello(self) -> RecordDict:
        """The reply to a greeting."""
        return self.seen.hello(self.site.name, outbox.hello(self.site))

    def records(self, work: WorkSpec, stage: str) -> SiteRecords:
        """The training records of a stage as this site holds them in memory."""
        nlp_task = open_work(work.resident, work.task)[1]
        return site_records(self.site, stage, "train", work, nlp_task, self.kept)

    def spent(self, unit: str = "person") -> Spent:
        """What the ledger says."""
        return self.site.open_ledger(unit).spent()

    def lines(self) -> list[str]:
        """Kinds of the lines of the ledger, without the one that opens it."""
        file = self.site.ledger_folder / "events.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [str(json.loads(line)["type"]) for line in lines][1:]

    def booked(self) -> int:
        """Reservations in the ledger."""
        return self.lines().count("reserve")


class Watched:
    """Sees what stays at the site: the records that a round drew, step by step together."""

    def __init__(self) -> None:
        self.records, self.rounds = 0, 0

    def __call__(self, site: Site, task: TrainTask, result: LocalResult) -> None:
        """Called after training, before anything is sealed."""
        self.records, self.rounds = self.records + result.records, self.rounds + 1


def made_up_rows(
    spec: TaskSpec, people: Sequence[str], seed: int = 1, lengths: Sequence[int] = LENGTHS
) -> list[dict[str, str]]:
    """A record for each of ``people``, with a column for the person; ``lengths``: words of its texts, taken in turn.

    Labels are those that the second stage teaches, where the work says which: records of others may add nothing.
    """
    draw = np.random.default_rng(seed)
    taught = spec.taught(STAGES[1])
    labels = [name for name, _ in spec.labels] if taught is None else [spec.labels[at][0] for at in taught.own]
    rows = []
    for number, person in enumerate(people):
        label = labels[int(draw.integers(len(labels)))] if labels else ""
        rows.append({**made_up_row(spec, draw, lengths[number % len(lengths)], label), "person": person})
    return rows
