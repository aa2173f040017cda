"""The Open Inference Protocol (v2) without its transports: tensors of texts in, tensors of answers out.

A model is one adapter: ``name`` is its name or its label, ``version`` its version. It takes one tensor of BYTES, by the
task's name (``text``, ``prompt``) or any other, of shape [n] or [n, 1]; what it gives stands in ``tasks.py``. One that
ranks takes and gives none: no tensor of texts says which candidates are a query's.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmchain_fl import __version__
from llmchain_fl.serve import refusals
from llmchain_fl.serve.answer import Value
from llmchain_fl.serve.call import Call
from llmchain_fl.serve.served import Served
from llmchain_fl.serve.service import Service
from llmchain_fl.serve.tasks import SERVED
from llmchain_fl.serve.tenants import Caller

NAME, PLATFORM = "llmchain-fl", "pytorch_peft"
BYTES = "BYTES"
PACKED = {"FP32": "<f4", "BOOL": "?"}
EXTENSIONS = ("binary_tensor_data",)


@dataclass(frozen=True)
class Given:
    """An input tensor. ``texts``: its elements in order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    texts: Sequence[str]


@dataclass(frozen=True)
class Gave:
    """An output tensor."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Value]

    def raw(self) -> bytes:
        """As the binary extension has it: BYTES with their sizes in front, little-endian."""
        if self.datatype == BYTES:
            return b"".join(struct.pack("<I", len(data)) + data for data in (str(v).encode() for v in self.values))
        return np.asarray(self.values, dtype=PACKED[self.datatype]).tobytes()


@dataclass(frozen=True)
class Inferred:
    """The answer to one inference."""

    served: Served
    outputs: tuple[Gave, ...]


def asked_label(name: str, version: str) -> str:
    """How a tenant names an adapter."""
    return f"{name}@{version}" if version else name


def model_of(service: Service, caller: Caller, name: str, version: str) -> Served:
    """The adapter of this name.

    Raises:
        ApiError: 404.
    """
    found = service.tenants.adapter(caller.tenant, asked_label(name, version)) if name else None
    if found is None:
        raise refusals.no_such_model()
    return found


def metadata(served: Served) -> dict[str, object]:
    """Of one adapter."""
    task = SERVED[served.task.kind]
    gives = [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in task.gives.items()]
    takes = [{"name": task.takes, "datatype": BYTES, "shape": [-1]}] if task.takes else []
    told = {"name": served.name, "versions": [served.version], "platform": PLATFORM}
    return {**told, "inputs": takes, "outputs": gives}


def server_metadata() -> dict[str, object]:
    """Of the server."""
    return {"name": NAME, "version": __version__, "extensions": list(EXTENSIONS)}


def let_in(
    service: Service, caller: Caller, name: str, version: str, inputs: Sequence[Given]
) -> tuple[Call, list[str]]:
    """Check an inference.

    Raises:
        ApiError: 400, 404, 429.
    """
    if len(inputs) != 1:
        raise refusals.bad("inputs", "one tensor")
    given = inputs[0]
    size = int(np.prod(given.shape, dtype=object)) if given.shape else 0
    if given.datatype != BYTES or len(given.shape) not in (1, 2) or (len(given.shape) == 2 and given.shape[1] != 1):
        raise refusals.bad("inputs", "a tensor of BYTES of shape [n] or [n, 1]")
    if size != len(given.texts):
        raise refusals.bad("inputs", f"{len(given.texts)} elements for another shape")
    texts = list(given.texts)
    service.check_texts(texts, "inputs")
    if not all(texts):
        raise refusals.bad("inputs", "an empty text")
    if not name:
        raise refusals.no_such_model()
    return service.call(caller, asked_label(name, version), len(texts)), texts


async def infer(service: Service, call: Call, texts: Sequence[str], wanted: Sequence[str]) -> Inferred:
    """Compute the outputs ``wanted``; none: all.

    Raises:
        ApiError: 400 an output that there is not; or what the service refuses.
    """
    gives: Mapping[str, str] = call.task.gives
    unknown = [name for name in wanted if name not in gives]
    if unknown:
        raise refusals.bad("outputs", f"there is {', '.join(gives)}")
    answers = await call.task.answer(service, call, texts, 1)
    outputs = [
        Gave(name, gives[name], (len(answers),), [answer.values[name] for answer in answers])
        for name in (wanted or gives)
    ]
    return Inferred(call.served, tuple(outputs))


def texts_of(data: bytes) -> list[str]:
    """The elements of a BYTES tensor in its binary form.

    Raises:
        ApiError: sizes that do not fit, or no UTF-8.
    """
    found, place = list[str](), 0
    while place < len(data):
        if place + 4 > len(data):
            raise refusals.bad("inputs", "binary data is cut off")
        (size,) = struct.unpack_from("<I", data, place)
        part = data[place + 4 : place + 4 + size]
        if len(part) != size:
            raise refusals.bad("inputs", "binary data is cut off")
        found.append(decoded(part))
        place += 4 + size
    return found


def decoded(data: bytes) -> str:
    """UTF-8.

    Raises:
        ApiError: it is none.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise refusals.bad("inputs", "a text is not UTF-8") from None
