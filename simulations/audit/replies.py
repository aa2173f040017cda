"""What a reply may hold: an exact list of names, types and lengths. Anything beside it is a way out for private facts.

An update is arrays of the shapes that the task says and three values of a config; scores are one number for each stage
that was asked for; a refusal is one word. The bytes of an array are those that Flower writes for it: nothing behind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from client.rounds import stays
from llmchain_fl import __version__
from llmchain_fl.core.array_record import pack, unpack
from llmchain_fl.core.compression.update import blob_size
from llmchain_fl.core.errors import CODES, LlmchainError
from llmchain_fl.core.messages import PROTOCOL, TrainTask
from llmchain_fl.core.privacy.receipt import CHARACTERS
from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.core.work import WorkSpec, open_work
from llmchain_fl.privacy.audit.conformance import never
from llmchain_fl.privacy.audit.finding import Finding


@dataclass
class Seen:
    """All replies of a check, and what was wrong with any of them."""

    replies: int = 0
    faults: list[str] = field(default_factory=list)

    def update(self, task: TrainTask, reply: RecordDict) -> RecordDict:
        """Look at the reply to a train task; hand it on."""
        return self._noted(reply, update_faults(task, reply))

    def scores(self, task: ScoreTask, reply: RecordDict) -> RecordDict:
        """Look at the reply to a score task; hand it on."""
        return self._noted(reply, score_faults(task, reply))

    def hello(self, site: str, reply: RecordDict) -> RecordDict:
        """Look at the reply to a greeting; hand it on."""
        config: dict[str, int | str | None] = {"site": site, "version": __version__, "protocol": PROTOCOL}
        return self._noted(reply, _record_faults(reply, {"config"}) + _config_faults(reply, config))

    def finding(self, name: str) -> Finding:
        """Passed when no reply held anything that is not on the list."""
        first = f" First: {self.faults[0]}." if self.faults else ""
        words = f"Things in {self.replies} replies that are not on the list of what may leave.{first}"
        return never(f"replies ({name})", len(self.faults) if self.replies else 1, words)

    def _noted(self, reply: RecordDict, faults: Sequence[str]) -> RecordDict:
        self.replies += 1
        self.faults += faults
        return reply


def update_faults(task: TrainTask, reply: RecordDict) -> list[str]:
    """What in the reply to a train task is not on the list."""
    if _refused(reply):
        return _refusal_faults(reply)
    config: dict[str, int | str | None] = {"round": task.round, "version": __version__, "receipt": None}
    faults = _record_faults(reply, {"arrays", "config"}) + _config_faults(reply, config)
    try:
        record = reply.array_records.get("arrays", ArrayRecord())
        arrays, wanted = unpack(record), _wanted(task)
    except LlmchainError:
        return [*faults, "an update of a task that cannot be done"]
    if set(arrays) != set(wanted):
        faults.append("names of the arrays")
    if any((str(value.dtype), value.shape) != wanted.get(name, ("", ())) for name, value in arrays.items()):
        faults.append("type or shape of an array")
    if record != pack(arrays):
        faults.append("bytes that are no array's")
    return faults


def score_faults(task: ScoreTask, reply: RecordDict) -> list[str]:
    """What in the reply to a score task is not on the list."""
    if _refused(reply):
        return _refusal_faults(reply)
    faults = _record_faults(reply, {"scores", "config"})
    faults += _config_faults(reply, {"round": task.round, "receipt": None})
    values = dict(reply.metric_records.get("scores") or {})
    if list(values) != sorted(task.stages) or any(type(value) is not float for value in values.values()):
        faults.append("names or types of the scores")
    return faults


def _refused(reply: RecordDict) -> bool:
    return "refused" in reply.config_records.get("config", {})


def _refusal_faults(reply: RecordDict) -> list[str]:
    config = reply.config_records["config"]
    alone = set(config) == {"refused"} and config["refused"] in CODES
    return _record_faults(reply, {"config"}) + ([] if alone else ["a refusal that is more than a word of the list"])


def _record_faults(reply: RecordDict, wanted: set[str]) -> list[str]:
    return [] if set(reply) == wanted else ["records of other names"]


def _config_faults(reply: RecordDict, wanted: Mapping[str, int | str | None]) -> list[str]:
    """None stands for a receipt: a text of one length."""
    config = dict(reply.config_records.get("config") or {})
    if set(config) != set(wanted):
        return ["names in the config"]
    wrong = [name for name, value in wanted.items() if not _is_as_told(config[name], value)]
    return [f"the value of {name} in the config" for name in wrong]


def _is_as_told(value: object, wanted: int | str | None) -> bool:
    if wanted is None:
        return type(value) is str and len(value) == CHARACTERS and re.fullmatch(r"[A-Za-z0-9_-]+=*", value) is not None
    return type(value) is type(wanted) and value == wanted


def _wanted(task: TrainTask) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (type, shape) of what is trained and does not stay at the site."""
    work = WorkSpec.from_json(task.work)
    resident = open_work(work.resident, work.task)[0]
    resident.focus(task.trains or work.adapter.trained)
    shapes = {name: resident.shapes[name] for name in resident.trained_names if not stays(name, task.keeps)}
    if work.codec.name == "none":
        return {name: (str(np.dtype(np.float32)), shape) for name, shape in shapes.items()}
    return {name: ("uint8", (blob_size(shape, work.codec),)) for name, shape in shapes.items()}
