"""Replies that no honest site sends, for simulations and for tests: each must be refused, and for the reason given.

None of them is an update that could be summed. A reply that could be, and should not, is another matter
(``hostile.py``).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from llmchain_fl.core.adapter.value import Arrays
from llmchain_fl.core.array_record import FORMAT, NAME, pack
from llmchain_fl.core.wire import write_refusal, write_scores, write_update
from llmchain_fl.replies import MAX_RECEIPT

Raw = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Malformed:
    """One kind. ``content``: (round, the honest update) -> the reply; ``reason``: why the server refuses it."""

    content: Callable[[int, Arrays], RecordDict]
    reason: str


def config_of(number: int) -> ConfigRecord:
    """The part of a reply that is not arrays, as the protocol wants it."""
    return ConfigRecord({"round": number, "version": "", "receipt": ""})


def raw(number: int, arrays: Raw) -> RecordDict:
    """A reply of these arrays, whatever they are."""
    return RecordDict({"arrays": pack({k: np.asarray(v) for k, v in arrays.items()}), "config": config_of(number)})


def changed(change: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> Callable[[int, Arrays], RecordDict]:
    """A reply in which the largest array is changed and the others are as they should be."""

    def content(number: int, arrays: Arrays) -> RecordDict:
        name = largest(arrays)
        return raw(number, {**arrays, name: change(arrays[name].copy())})

    return content


def largest(arrays: Arrays) -> str:
    """The name of the array with most numbers in it."""
    return max(sorted(arrays), key=lambda name: arrays[name].size)


def encoded(kind: str, data: bytes) -> Callable[[int, Arrays], RecordDict]:
    """A reply whose arrays are the bytes ``data``."""

    def content(number: int, _arrays: Arrays) -> RecordDict:
        record = ArrayRecord({NAME: Array("uint8", (len(data),), kind, data)})
        return RecordDict({"arrays": record, "config": config_of(number)})

    return content


def one_by_one(number: int, arrays: Arrays) -> RecordDict:
    """The arrays as protocol 5 sent them."""
    record = ArrayRecord({name: Array(value) for name, value in arrays.items()})
    return RecordDict({"arrays": record, "config": config_of(number)})


def cut(number: int, arrays: Arrays) -> RecordDict:
    """The last byte is missing."""
    return encoded(FORMAT, pack(arrays)[NAME].data[:-1])(number, arrays)


def one_number(value: float) -> Callable[[NDArray[np.generic]], NDArray[np.generic]]:
    """The same array with another number at its end."""

    def change(array: NDArray[np.generic]) -> NDArray[np.generic]:
        array.flat[-1] = value
        return array

    return change


def crash(_number: int, _arrays: Arrays) -> NoReturn:
    """The program fails while it answers."""
    raise RuntimeError("a program that fails")


def _pickle() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return stream.getvalue()


def _table(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


def _without_config(_number: int, arrays: Arrays) -> RecordDict:
    return RecordDict({"arrays": pack(arrays)})


def _with_config(arrays: Arrays, config: ConfigRecord) -> RecordDict:
    return RecordDict({**_without_config(0, arrays), "config": config})


def _round_as_text(number: int, arrays: Arrays) -> RecordDict:
    return _with_config(arrays, ConfigRecord({"round": str(number), "receipt": ""}))


def _beside(number: int, arrays: Arrays) -> RecordDict:
    return RecordDict({**raw(number, arrays), "more": pack(arrays)})


TERABYTES = _table(f'{{"x":{{"dtype":"F32","shape":[{2**40}],"data_offsets":[0,{2**42}]}}}}')
MALFORMED: Mapping[str, Malformed] = {
    "the round before": Malformed(lambda n, arrays: write_update(n - 1, arrays), "wrong-round"),
    "the round to come": Malformed(lambda n, arrays: write_update(n + 1, arrays), "wrong-round"),
    "no array": Malformed(lambda n, _: raw(n, {}), "missing-name"),
    "an array left out": Malformed(
        lambda n, arrays: raw(n, {k: v for k, v in arrays.items() if k != largest(arrays)}), "missing-name"
    ),
    "another name": Malformed(lambda n, arrays: raw(n, {k.upper(): v for k, v in arrays.items()}), "missing-name"),
    "an array too many": Malformed(lambda n, arrays: raw(n, {**arrays, "more": np.ones(1, "f4")}), "extra-name"),
    "float64": Malformed(changed(lambda array: array.astype(np.float64)), "wrong-dtype"),
    "float16": Malformed(changed(lambda array: array.astype(np.float16)), "wrong-dtype"),
    "integers": Malformed(changed(lambda array: array.astype(np.int32)), "wrong-dtype"),
    "a shape that broadcasts": Malformed(changed(lambda array: array.ravel()[:1]), "wrong-shape"),
    "a row too many": Malformed(changed(lambda array: np.concatenate([array, array[:1]])), "wrong-shape"),
    "another number of axes": Malformed(changed(lambda array: array[None]), "wrong-shape"),
    "no number at all": Malformed(changed(lambda array: array[:0]), "wrong-shape"),
    "NaN": Malformed(changed(one_number(float("nan"))), "not-finite"),
    "infinity": Malformed(changed(one_number(float("inf"))), "not-finite"),
    "minus infinity": Malformed(changed(one_number(float("-inf"))), "not-finite"),
    "a pickle": Malformed(encoded(FORMAT, _pickle()), "wire"),
    "bytes that are no array": Malformed(encoded(FORMAT, b"junk"), "wire"),
    "another library's bytes": Malformed(encoded("torch.Tensor", b"junk"), "wire"),
    "terabytes": Malformed(encoded(FORMAT, TERABYTES), "wire"),
    "a byte that is missing": Malformed(cut, "wire"),
    "arrays one by one": Malformed(one_by_one, "wire"),
    "scores for an update": Malformed(lambda n, _: write_scores(n, {"all": 1.0}), "wire"),
    "metrics for an update": Malformed(
        lambda n, _: RecordDict({"m": MetricRecord({"x": 1.0}), "config": config_of(n)}), "wire"
    ),
    "arrays beside the arrays": Malformed(_beside, "wire"),
    "no config": Malformed(_without_config, "wire"),
    "a round that is text": Malformed(
        lambda n, arrays: _with_config(arrays, ConfigRecord({"round": str(n), "receipt": ""})), "wire"
    ),
    "no receipt": Malformed(lambda n, arrays: _with_config(arrays, ConfigRecord({"round": n})), "wire"),
    "a receipt as long as a book": Malformed(
        lambda n, arrays: write_update(n, arrays, "x" * (MAX_RECEIPT + 1)), "wire"
    ),
    "a program that fails": Malformed(crash, "wire"),
    "a refusal in its own words": Malformed(lambda _n, _a: write_refusal("not today, thank you"), "unknown"),
}
"""Name -> kind."""
