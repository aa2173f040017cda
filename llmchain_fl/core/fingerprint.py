"""Which message it was: one digest of its content, the same where it was written and where it was read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from flwr.app import RecordDict


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of a message's content, and its size in bytes without names."""

    sha256: str
    size: int


def fingerprint(content: RecordDict) -> Fingerprint:
    """Of all records, whatever is in them; the order of records and of their entries does not count.

    Of the arrays type, shape and bytes; of everything else the values, texts and bytes as hexadecimal digits.
    """
    told: dict[str, dict[str, object]] = {}
    size = 0
    for name, arrays in content.array_records.items():
        told[f"arrays {name}"] = {
            key: [array.dtype, list(array.shape), hashlib.sha256(array.data).hexdigest()]
            for key, array in arrays.items()
        }
        size += sum(len(array.data) for array in arrays.values())
    for name, values in [*content.config_records.items(), *content.metric_records.items()]:
        told[f"values {name}"] = {key: _plain(value) for key, value in values.items()}
        size += len(json.dumps(list(told[f"values {name}"].values())))
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return Fingerprint(hashlib.sha256(text.encode()).hexdigest(), size)


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
