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
from typing import Any, cast

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from llmchain_fl import __version__
from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.array_record import pack, unpack
from llmchain_fl.core.errors import WireError
from llmchain_fl.core.messages import (
    HelloReply,
    ScoreTask,
    SecureQuery,
    SecureReply,
    SecureTask,
    TrainTask,
)

SAME = "server and site must run the same version"


def _arrays(record: RecordDict, name: str) -> Arrays:
    """Arrays of a message from the server. A site's replies go through ``replies.py`` instead."""
    found = record.array_records.get(name)
    if found is None:
        raise WireError(f"the message has no {name}", remedy=SAME)
    return cast(Arrays, unpack(found))  # their types are checked where they are loaded


def _config(record: RecordDict) -> ConfigRecord:
    found = record.config_records.get("config")
    if found is None:
        raise WireError("the message has no config", remedy=SAME)
    return found


def _text(config: ConfigRecord, name: str) -> str:
    value = config.get(name)
    if type(value) is not str:
        raise WireError(f"the message's {name} is not a text", remedy=SAME)
    return value


def _whole(config: ConfigRecord, name: str) -> int:
    value = config.get(name)
    if type(value) is not int:
        raise WireError(f"the message's {name} is not a whole number", remedy=SAME)
    return value


def _real(config: ConfigRecord, name: str) -> float:
    value = config.get(name)
    if type(value) is not float:
        raise WireError(f"the message's {name} is not a number", remedy=SAME)
    return value


def _texts(config: ConfigRecord, name: str) -> tuple[str, ...]:
    value = config.get(name)
    if not isinstance(value, list) or not all(type(item) is str for item in value):
        raise WireError(f"the message's {name} is not a list of texts", remedy=SAME)
    return tuple(map(str, value))


def _parts(config: ConfigRecord, name: str) -> tuple[bytes, ...]:
    value = config.get(name)
    if not isinstance(value, list) or not all(type(item) is bytes for item in value):
        raise WireError(f"the message's {name} is not a list of bytes", remedy=SAME)
    return tuple(item for item in value if isinstance(item, bytes))


def read_train_task(content: RecordDict) -> TrainTask:
    """Records -> ``TrainTask``.

    Raises:
        WireError: anything missing or of a wrong type.
    """
    config, secure = _config(content), content.config_records.get("secure")
    return TrainTask(
        run=_text(config, "run"),
        round=_whole(config, "round"),
        stage=_whole(config, "stage"),
        stage_name=_text(config, "stage-name"),
        lr=_real(config, "lr"),
        work=_text(config, "work"),
        arrays=_arrays(content, "arrays"),
        guard_arrays=_arrays(content, "guard") if "guard" in content.array_records else {},
        receipt=_text(config, "receipt"),
        federation=_text(config, "federation"),
        clip=_real(config, "clip"),
        trains=_texts(config, "trains"),
        keeps=_texts(config, "keeps"),
        earlier=_texts(config, "earlier"),
        secure=None
        if secure is None
        else SecureTask(_parts(secure, "directory"), _texts(secure, "shared"), _parts(secure, "shares")),
    )


def read_secure_query(content: RecordDict) -> SecureQuery:
    """Records -> ``SecureQuery``.

    Raises:
        WireError: anything missing or of a wrong type.
    """
    config = _config(content)
    return SecureQuery(
        _text(config, "step"),
        _text(config, "run"),
        _whole(config, "round"),
        _text(config, "work"),
        _parts(config, "directory"),
        _texts(config, "survivors"),
        _parts(config, "statements"),
        _parts(config, "confirmations"),
        _parts(config, "next_directory"),
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


def read_score_task(content: RecordDict) -> ScoreTask:
    """Records -> ``ScoreTask``.

    Raises:
        WireError: anything missing or of a wrong type.
    """
    config = _config(content)
    return ScoreTask(
        _whole(config, "round"),
        _texts(config, "stages"),
        _text(config, "work"),
        _arrays(content, "arrays"),
        run=_text(config, "run"),
        receipt=_text(config, "receipt"),
        federation=_text(config, "federation"),
        keeps=_texts(config, "keeps"),
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
