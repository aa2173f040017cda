"""What a site reads and writes: Flower records <-> typed messages. The server's half: ``requests.py``, ``replies.py``.

=============  ==================  =====================================================================
message type   server -> site      site -> server
=============  ==================  =====================================================================
query          Hello               HelloReply: the site's name, versions
train          TrainTask           Update: the changed arrays and a receipt, or Refusal: one code word
query.secure   SecureQuery         SecureReply: signed bytes of a secure sum, or Refusal
evaluate       ScoreTask           Scores (only where the site's policy shares them), or Refusal
=============  ==================  =====================================================================

A reply never carries a count, a loss, a time, a label or the text of an error. A *receipt* is a sealed note of a site
to itself (``privacy/receipt.py``): the server cannot read it and hands the last one back with the next task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from llmchain_fl import __version__
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.array_record import pack, unpack
from llmchain_fl.core.errors import SAME, WireError
from llmchain_fl.core.messages import HelloReply, SecureReply, SecureTask, TrainTask

T = TypeVar("T")
KINDS: Mapping[type, str] = {str: "a text", int: "a whole number", float: "a number", bool: "yes or no"}
LISTS: Mapping[type, str] = {str: "a list of texts", bytes: "a list of bytes"}


def arrays_of(record: RecordDict, name: str) -> Arrays:
    """Arrays of a message from the server. A site's replies go through ``replies.py`` instead."""
    packed = record.get(name)
    if not isinstance(packed, ArrayRecord):
        raise WireError(f"the message has no {name}", remedy=SAME)
    return cast(Arrays, unpack(packed))  # their types are checked where they are loaded


def config_of(record: RecordDict) -> ConfigRecord:
    """The values of a message."""
    config = record.get("config")
    if not isinstance(config, ConfigRecord):
        raise WireError("the message has no config", remedy=SAME)
    return config


def one(config: ConfigRecord, name: str, kind: type[T]) -> T:
    """The value ``name`` of a message, which is of this very type."""
    value = config.get(name)
    if type(value) is not kind:
        raise WireError(f"the message's {name} is not {KINDS[kind]}", remedy=SAME)
    return value


def some(config: ConfigRecord, name: str, kind: type[T]) -> tuple[T, ...]:
    """The list ``name`` of a message."""
    value = config.get(name)
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        raise WireError(f"the message's {name} is not {LISTS[kind]}", remedy=SAME)
    return tuple(cast("list[T]", value))


def read_train_task(content: RecordDict) -> TrainTask:
    """Records -> ``TrainTask``.

    Raises:
        WireError: anything missing or of a wrong type.
    """
    config, secure = config_of(content), content.get("secure")
    return TrainTask(
        run=one(config, "run", str),
        round=one(config, "round", int),
        stage=one(config, "stage", int),
        stage_name=one(config, "stage-name", str),
        lr=one(config, "lr", float),
        work=one(config, "work", str),
        arrays=arrays_of(content, "arrays"),
        guard_arrays=arrays_of(content, "guard") if isinstance(content.get("guard"), ArrayRecord) else {},
        receipt=one(config, "receipt", str),
        federation=one(config, "federation", str),
        clip=one(config, "clip", float),
        trains=some(config, "trains", str),
        keeps=some(config, "keeps", str),
        earlier=some(config, "earlier", str),
        secure=SecureTask(some(secure, "directory", bytes), some(secure, "shared", str), some(secure, "shares", bytes))
        if isinstance(secure, ConfigRecord)
        else None,
        sums=one(config, "sums", bool),
    )


def write_secure_reply(reply: SecureReply) -> RecordDict:
    """``SecureReply`` -> records."""
    return RecordDict({"secure": ConfigRecord({"data": reply.data, "more": reply.more})})


def write_update(update_round: int, arrays: Mapping[str, Any], receipt: str = "") -> RecordDict:
    """An update -> records; what ``client/outbox.py`` lets out. Equal updates are equal bytes."""
    return RecordDict(
        {
            "arrays": pack(arrays),
            "config": ConfigRecord({"round": update_round, "version": __version__, "receipt": receipt}),
        }
    )


def write_scores(number: int, values: Mapping[str, float], receipt: str = "") -> RecordDict:
    """Scores -> records."""
    config = ConfigRecord({"round": number, "receipt": receipt})
    return RecordDict({"scores": MetricRecord(dict(sorted(values.items()))), "config": config})


def write_refusal(code: str) -> RecordDict:
    """One code word -> records."""
    return RecordDict({"config": ConfigRecord({"refused": code})})


def write_hello(reply: HelloReply) -> RecordDict:
    """``HelloReply`` -> records."""
    return RecordDict(
        {"config": ConfigRecord({"site": reply.site, "version": reply.version, "protocol": reply.protocol})}
    )
