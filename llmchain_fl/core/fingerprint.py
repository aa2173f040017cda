"""Which message it was: what an audit log says of it, the same where it was written and where it was read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from llmchain_fl.core.errors import CODES

NAMES = 200
"""Longest name of a run that is entered, in characters."""


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of a message's content, and its size in bytes without names."""

    sha256: str
    size: int


def fingerprint(content: RecordDict) -> Fingerprint:
    """Of all records, whatever is in them; the order of records and of their entries does not count.

    Of the arrays type, shape and bytes; of everything else the values, texts and bytes as hexadecimal digits.
    """
    summary: dict[str, dict[str, object]] = {}
    size = 0
    for name, record in content.items():  # Flower's views by type copy the whole message each time
        if isinstance(record, ArrayRecord):
            summary[f"arrays {name}"] = {
                key: [array.dtype, list(array.shape), hashlib.sha256(array.data).hexdigest()]
                for key, array in record.items()
            }
            size += sum(len(array.data) for array in record.values())
            continue
        summary[f"values {name}"] = {key: _plain(value) for key, value in record.items()}
        size += len(json.dumps(list(summary[f"values {name}"].values())))
    text = json.dumps(summary, sort_keys=True, separators=(",", ":"))
    return Fingerprint(hashlib.sha256(text.encode()).hexdigest(), size)


def place_of(message: Message) -> dict[str, str | int]:
    """Kind, run and round of a message; what it does not say, or not as it should, is "" and 0."""
    config = _told(message.content) if message.has_content() else {}
    run, number = config.get("run"), config.get("round")
    named = run if isinstance(run, str) and len(run) <= NAMES and run.isprintable() else ""
    counted = number if type(number) is int and 0 <= number < 2**53 else 0
    return {"kind": message.metadata.message_type, "run": named, "round": counted}


def work_of(content: RecordDict) -> str:
    """SHA-256 of the work description in a message, "" where there is none."""
    work = _told(content).get("work")
    return hashlib.sha256(work.encode(errors="surrogatepass")).hexdigest() if isinstance(work, str) and work else ""


def decision_of(content: RecordDict) -> str:
    """``answered``, or the code word of a refusal; ``unknown`` for a word that is none."""
    code = _told(content).get("refused")
    return "answered" if code is None else code if isinstance(code, str) and code in CODES else "unknown"


def _told(content: RecordDict) -> Mapping[str, object]:
    config = content.get("config")
    return config if isinstance(config, ConfigRecord) else {}


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
