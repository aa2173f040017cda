"""What a site's message may say, read by the server: whatever it holds, the answer is a value or a WireError.

A message is anybody's bytes. Nothing of it is quoted, repaired or trusted: arrays go on to ``admission.py``,
scores to ``server/site_scores.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from llmchain_fl.core.array_record import unpack
from llmchain_fl.core.errors import CODES, WireError
from llmchain_fl.core.messages import PROTOCOL, HelloReply, SecureReply
from llmchain_fl.core.section import NAME

T = TypeVar("T")
MAX_RECEIPT = 1024
"""Longest receipt that is kept, in characters."""
MAX_SCORES = 1_000
"""Most scores of one reply."""
MAX_VERSION = 64
"""Longest version a site may call itself, in characters."""
MAX_SECURE_BYTES = 2**24
"""Longest answer to a step of a secure sum: shares for hundreds of sites."""
_SAME = "server and site must run the same version"


@dataclass(frozen=True)
class Update:
    """What leaves a site: trained arrays minus those received, and the site's receipt."""

    round: int
    arrays: Mapping[str, object]
    receipt: str = ""


@dataclass(frozen=True)
class Scores:
    """One number per stage."""

    round: int
    values: dict[str, float]
    receipt: str = ""


@dataclass(frozen=True)
class Refusal:
    """A site that did not do what was asked; ``code`` is one of the codes of ``errors.py``."""

    code: str


def read_reply(content: RecordDict) -> Update | Scores | Refusal:
    """A site's reply, still untrusted: arrays and scores are handed on for admission.

    =============================================  ====================================================
    reply                                          read as
    =============================================  ====================================================
    ``refused`` is one of ``CODES``                that refusal
    ``refused`` is anything else but missing       the refusal ``unknown``
    round or receipt missing, mistyped, too long   WireError
    a score that is no number, too many scores     WireError
    arrays that :mod:`.array_record` does not know       WireError
    whatever else Flower, numpy or Python raise    WireError; their words are not passed on
    =============================================  ====================================================

    Raises:
        WireError: it follows none of the three forms, or is too large.
    """
    return _only_wire_errors(lambda: _reply(content), "the reply cannot be read")


def _only_wire_errors(read: Callable[[], T], message: str) -> T:
    """What ``read`` makes of a site's message; whatever it raises (MemoryError, TypeError, ...) is a WireError."""
    try:
        return read()
    except WireError:
        raise
    except Exception:
        raise WireError(message, remedy=_SAME) from None


def _reply(content: RecordDict) -> Update | Scores | Refusal:
    config = _config(content)
    code = config.get("refused")
    if code is not None:
        return Refusal(code if isinstance(code, str) and code in CODES else "unknown")
    number, receipt = _number(config, "round"), _text(config, "receipt")
    if len(receipt) > MAX_RECEIPT:
        raise WireError(f"a receipt of {len(receipt)} characters, at most {MAX_RECEIPT}", remedy="run the same version")
    scores, record = content.get("scores"), content.get("arrays")
    if isinstance(scores, MetricRecord):
        return Scores(number, _scores(scores), receipt)
    if not isinstance(record, ArrayRecord) or sum(isinstance(one, ArrayRecord) for one in content.values()) > 1:
        raise WireError("the reply holds no update", remedy=_SAME)
    return Update(number, unpack(record), receipt)


def _config(content: RecordDict) -> ConfigRecord:
    config = content.get("config")
    if not isinstance(config, ConfigRecord):
        raise WireError("the message has no config", remedy=_SAME)
    return config


def _text(config: ConfigRecord, name: str) -> str:
    value = config.get(name)
    if not isinstance(value, str):
        raise WireError(f"the message's {name} is not a str", remedy=_SAME)
    return value


def _number(config: ConfigRecord, name: str) -> int:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise WireError(f"the message's {name} is not an int from 0", remedy=_SAME)
    return value


def _scores(record: MetricRecord) -> dict[str, float]:
    if len(record) > MAX_SCORES or not all(type(value) in (int, float) for value in record.values()):
        message = f"a score that is no number, or more than {MAX_SCORES} of them"
        raise WireError(message, remedy=_SAME)
    return {name: float(value) for name, value in record.items() if isinstance(value, int | float)}


def read_secure_reply(content: RecordDict) -> SecureReply | Refusal:
    """A site's answer to a step of a secure sum; its bytes are checked by who hears them (``secure_sum.py``).

    Raises:
        WireError: it is neither, or too long.
    """
    return _only_wire_errors(lambda: _secure_reply(content), "the answer of a site cannot be read")


def _secure_reply(content: RecordDict) -> SecureReply | Refusal:
    refused = content.config_records.get("config")
    if refused is not None:
        code = refused.get("refused")
        return Refusal(code if isinstance(code, str) and code in CODES else "unknown")
    config = content.config_records["secure"]
    data, more = config["data"], config["more"]
    if type(data) is not bytes or type(more) is not bytes or len(data) + len(more) > MAX_SECURE_BYTES:
        raise WireError("a step of a secure sum is no bytes, or too many", remedy=_SAME)
    return SecureReply(data, more)


def read_hello(content: RecordDict) -> HelloReply:
    """Records -> ``HelloReply``. A name that could not stand in a site file is no name.

    Raises:
        WireError: another protocol, or a name or version that no site has.
    """
    return _only_wire_errors(lambda: _hello(content), "the answer of a node cannot be read")


def _hello(content: RecordDict) -> HelloReply:
    config = _config(content)
    protocol = _number(config, "protocol")
    if protocol != PROTOCOL:  # looked at first: what another one says may have another form
        raise WireError(
            f"it speaks protocol {protocol}, the server {PROTOCOL}", remedy="run the same version everywhere"
        )
    site, version = _text(config, "site"), _text(config, "version")
    if not re.fullmatch(NAME, site):
        raise WireError("a node calls itself what no site can be called", remedy="correct `name` in its site file")
    if len(version) > MAX_VERSION or not version.isprintable():
        raise WireError("a node's version is no version", remedy="run the same version everywhere")
    return HelloReply(site, version, protocol)
