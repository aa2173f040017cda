"""Typed messages <-> Flower records. The only shared file that knows flwr.

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
from llmchain_fl.errors import CODES, WireError
from llmchain_fl.messages import (
    MAX_BYTES,
    MAX_RECEIPT,
    PROTOCOL,
    HelloReply,
    Refusal,
    Scores,
    ScoreTask,
    TrainTask,
    Update,
)


def _record(arrays: Mapping[str, Any]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.ascontiguousarray(value)) for name, value in arrays.items()})


def _arrays(record: RecordDict, name: str) -> Arrays:
    """Arrays of a message from the server. A site's replies go through ``read_update`` instead."""
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


def read_reply(content: RecordDict) -> Update | Scores | Refusal:
    """A site's reply, still untrusted: arrays are handed on for admission.

    Raises:
        WireError: it follows none of the three forms, or is too large.
    """
    config = _config(content)
    code = config.get("refused")
    if code is not None:
        return Refusal(code if code in CODES else "unknown")
    number = int(str(_take(config, "round", int)))
    receipt = str(_take(config, "receipt", str))
    if len(receipt) > MAX_RECEIPT:
        raise WireError(f"a receipt of {len(receipt)} characters, at most {MAX_RECEIPT}", remedy="run the same version")
    if "scores" in content.metric_records:
        values = {str(k): float(v) for k, v in content.metric_records["scores"].items() if isinstance(v, int | float)}
        return Scores(number, values, receipt)
    record = content.array_records.get("arrays")
    if record is None or set(content.array_records) != {"arrays"}:
        raise WireError("the reply holds no update", remedy="the site must run the same version")
    if sum(len(value.data) for value in record.values()) > MAX_BYTES:
        raise WireError(f"the reply is larger than {MAX_BYTES} bytes", remedy="use a smaller adapter")
    try:
        return Update(number, {name: value.numpy() for name, value in record.items()}, receipt)
    except Exception as error:  # whatever numpy raises on hostile bytes (MemoryError, TokenError, ...)
        raise WireError(
            "the reply's arrays cannot be decoded", remedy="the site must send plain float32 arrays"
        ) from error


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


def read_hello(content: RecordDict) -> HelloReply:
    """Records -> ``HelloReply``.

    Raises:
        WireError: another protocol.
    """
    config = _config(content)
    reply = HelloReply(
        str(_take(config, "site", str)), str(_take(config, "version", str)), int(str(_take(config, "protocol", int)))
    )
    if reply.protocol != PROTOCOL:
        raise WireError(
            f"a site speaks protocol {reply.protocol}, the server {PROTOCOL}", remedy="run the same version everywhere"
        )
    return reply
