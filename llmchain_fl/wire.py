"""Typed messages <-> Flower records. With ``replies.py`` the only shared file that knows flwr.

=============  ==================  =====================================================================
message type   server -> site      site -> server
=============  ==================  =====================================================================
query          Hello               HelloReply: the site's name, versions
train          TrainTask           Update: the changed arrays and a receipt, or Refusal: one code word
evaluate       ScoreTask           Scores (only where the site's policy shares them), or Refusal
=============  ==================  =====================================================================

A reply never carries a count, a loss, a time, a label or the text of an error. A *receipt* is a sealed note of a site
to itself (``privacy/receipt.py``): the server cannot read it and hands the last one back with the next task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from llmchain_fl import __version__
from llmchain_fl.adapter.value import Arrays
from llmchain_fl.errors import WireError
from llmchain_fl.messages import HelloReply, ScoreTask, TrainTask
from llmchain_fl.replies import read_hello, read_reply

__all__ = [
    "read_hello",
    "read_reply",
    "read_score_task",
    "read_train_task",
    "write_hello",
    "write_refusal",
    "write_score_task",
    "write_scores",
    "write_train_task",
    "write_update",
]


def _record(arrays: Mapping[str, Any]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.ascontiguousarray(value)) for name, value in arrays.items()})


def _arrays(record: RecordDict, name: str) -> Arrays:
    """Arrays of a message from the server. A site's replies go through ``replies.py`` instead."""
    found = record.array_records.get(name)
    if found is None:
        raise WireError(f"the message has no {name}", remedy="server and site must run the same version")
    return {key: value.numpy() for key, value in found.items()}


def _config(record: RecordDict) -> ConfigRecord:
    found = record.config_records.get("config")
    if found is None:
        raise WireError("the message has no config", remedy="server and site must run the same version")
    return found


def _take(config: ConfigRecord, name: str, kind: type) -> object:
    value = config.get(name)
    if type(value) is not kind:
        raise WireError(
            f"the message's {name} is not a {kind.__name__}", remedy="server and site must run the same version"
        )
    return value


def _take_list(config: ConfigRecord, name: str) -> list[object]:
    value = config.get(name)
    if not isinstance(value, list):
        raise WireError(f"the message's {name} is not a list", remedy="server and site must run the same version")
    return list(value)


def write_train_task(task: TrainTask) -> RecordDict:
    """``TrainTask`` -> records."""
    config = ConfigRecord(
        {
            "run": task.run,
            "round": task.round,
            "stage": task.stage,
            "stage-name": task.stage_name,
            "lr": task.lr,
            "work": task.work,
            "receipt": task.receipt,
            "federation": task.federation,
            "clip": task.clip,
            "trains": list(task.trains),
            "keeps": list(task.keeps),
            "earlier": list(task.earlier),
        }
    )
    content = RecordDict({"arrays": _record(task.arrays), "config": config})
    if task.guard_arrays:
        content["guard"] = _record(task.guard_arrays)
    return content


def read_train_task(content: RecordDict) -> TrainTask:
    """Records -> ``TrainTask``.

    Raises:
        WireError: anything missing or of a wrong type.
    """
    config = _config(content)
    return TrainTask(
        run=str(_take(config, "run", str)),
        round=int(str(_take(config, "round", int))),
        stage=int(str(_take(config, "stage", int))),
        stage_name=str(_take(config, "stage-name", str)),
        lr=float(str(_take(config, "lr", float))),
        work=str(_take(config, "work", str)),
        arrays=_arrays(content, "arrays"),
        guard_arrays=_arrays(content, "guard") if "guard" in content.array_records else {},
        receipt=str(_take(config, "receipt", str)),
        federation=str(_take(config, "federation", str)),
        clip=float(str(_take(config, "clip", float))),
        trains=tuple(map(str, _take_list(config, "trains"))),
        keeps=tuple(map(str, _take_list(config, "keeps"))),
        earlier=tuple(map(str, _take_list(config, "earlier"))),
    )


def write_update(update_round: int, arrays: Mapping[str, Any], receipt: str = "") -> RecordDict:
    """An update -> records; what ``client/outbox.py`` lets out. Sorted by name: equal updates are equal bytes."""
    return RecordDict(
        {
            "arrays": _record(dict(sorted(arrays.items()))),
            "config": ConfigRecord({"round": update_round, "version": __version__, "receipt": receipt}),
        }
    )


def write_score_task(task: ScoreTask) -> RecordDict:
    """``ScoreTask`` -> records."""
    config = ConfigRecord(
        {
            "round": task.round,
            "stages": list(task.stages),
            "work": task.work,
            "run": task.run,
            "receipt": task.receipt,
            "federation": task.federation,
            "keeps": list(task.keeps),
        }
    )
    return RecordDict({"arrays": _record(task.arrays), "config": config})


def read_score_task(content: RecordDict) -> ScoreTask:
    """Records -> ``ScoreTask``."""
    config = _config(content)
    return ScoreTask(
        int(str(_take(config, "round", int))),
        tuple(map(str, _take_list(config, "stages"))),
        str(_take(config, "work", str)),
        _arrays(content, "arrays"),
        run=str(_take(config, "run", str)),
        receipt=str(_take(config, "receipt", str)),
        federation=str(_take(config, "federation", str)),
        keeps=tuple(map(str, _take_list(config, "keeps"))),
    )


def write_scores(number: int, values: Mapping[str, float], receipt: str = "") -> RecordDict:
    """Scores -> records."""
    told = ConfigRecord({"round": number, "receipt": receipt})
    return RecordDict({"scores": MetricRecord(dict(sorted(values.items()))), "config": told})


def write_refusal(code: str) -> RecordDict:
    """One code word -> records."""
    return RecordDict({"config": ConfigRecord({"refused": code})})


def write_hello(reply: HelloReply) -> RecordDict:
    """``HelloReply`` -> records."""
    return RecordDict(
        {"config": ConfigRecord({"site": reply.site, "version": reply.version, "protocol": reply.protocol})}
    )
