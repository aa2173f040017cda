"""The messages of the Open Inference Protocol over gRPC, declared as a table; no generated code.

Names and numbers are those of ``open_inference_grpc.proto`` (kserve/open-inference-protocol): they are the wire. A pool
of its own keeps them apart from the generated modules that a client in the same process may have loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE, SERVICE = "inference", "inference.GRPCInferenceService"
_TYPES = {
    "string": 9,
    "bool": 8,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "uint32": 13,
    "float": 2,
    "double": 1,
    "bytes": 12,
}


@dataclass(frozen=True)
class Field:
    """``type`` is a scalar's, or another message's name. ``map``: string -> that type."""

    number: int
    type: str
    repeated: bool = False
    map: bool = False
    oneof: str = ""


def _many(number: int, kind: str) -> Field:
    return Field(number, kind, repeated=True)


_NAMED = {"name": Field(1, "string"), "version": Field(2, "string")}
_TENSOR = {"name": Field(1, "string"), "datatype": Field(2, "string"), "shape": _many(3, "int64")}
_PARAMETERS = Field(4, "InferParameter", map=True)
_FILLED = {**_TENSOR, "parameters": _PARAMETERS, "contents": Field(5, "InferTensorContents")}
_MODEL = {"model_name": Field(1, "string"), "model_version": Field(2, "string"), "id": Field(3, "string")}
MESSAGES: Mapping[str, Mapping[str, Field]] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": Field(1, "bool")},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": Field(1, "bool")},
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": {"ready": Field(1, "bool")},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {**_NAMED, "extensions": _many(3, "string")},
    "ModelMetadataRequest": _NAMED,
    "ModelMetadataResponse": {
        "name": Field(1, "string"),
        "versions": _many(2, "string"),
        "platform": Field(3, "string"),
        "inputs": _many(4, "ModelMetadataResponse.TensorMetadata"),
        "outputs": _many(5, "ModelMetadataResponse.TensorMetadata"),
    },
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "ModelInferRequest": {
        **_MODEL,
        "parameters": _PARAMETERS,
        "inputs": _many(5, "ModelInferRequest.InferInputTensor"),
        "outputs": _many(6, "ModelInferRequest.InferRequestedOutputTensor"),
        "raw_input_contents": _many(7, "bytes"),
    },
    "ModelInferRequest.InferInputTensor": _FILLED,
    "ModelInferRequest.InferRequestedOutputTensor": {
        "name": Field(1, "string"),
        "parameters": Field(2, "InferParameter", map=True),
    },
    "ModelInferResponse": {
        **_MODEL,
        "parameters": _PARAMETERS,
        "outputs": _many(5, "ModelInferResponse.InferOutputTensor"),
        "raw_output_contents": _many(6, "bytes"),
    },
    "ModelInferResponse.InferOutputTensor": _FILLED,
    "InferParameter": {
        "bool_param": Field(1, "bool", oneof="parameter_choice"),
        "int64_param": Field(2, "int64", oneof="parameter_choice"),
        "string_param": Field(3, "string", oneof="parameter_choice"),
        "double_param": Field(4, "double", oneof="parameter_choice"),
        "uint64_param": Field(5, "uint64", oneof="parameter_choice"),
    },
    "InferTensorContents": {
        "bool_contents": _many(1, "bool"),
        "int_contents": _many(2, "int32"),
        "int64_contents": _many(3, "int64"),
        "uint_contents": _many(4, "uint32"),
        "uint64_contents": _many(5, "uint64"),
        "fp32_contents": _many(6, "float"),
        "fp64_contents": _many(7, "double"),
        "bytes_contents": _many(8, "bytes"),
    },
}
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
"""Each takes ``<name>Request`` and gives ``<name>Response``."""


@functools.cache
def message(name: str) -> type[Any]:
    """The class of a message, such as ``ModelInferRequest``."""
    found: type[Any] = message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))
    return found


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="llmchain_open_inference.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, descriptor_pb2.DescriptorProto] = {}
    for name, fields in MESSAGES.items():
        outer, _, inner = name.rpartition(".")
        told = made[outer].nested_type.add() if outer else file.message_type.add()
        told.name, made[name] = inner, told
        for field, spec in fields.items():
            _add(told, name, field, spec)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add(told: descriptor_pb2.DescriptorProto, owner: str, name: str, spec: Field) -> None:
    field = told.field.add(name=name, number=spec.number, label=3 if spec.repeated or spec.map else 1)
    if spec.oneof:
        if not told.oneof_decl:
            told.oneof_decl.add(name=spec.oneof)
        field.oneof_index = 0
    if spec.map:
        entry = told.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=1, type=9)
        entry.field.add(name="value", number=2, label=1, type=11, type_name=f".{PACKAGE}.{spec.type}")
        field.type, field.type_name = 11, f".{PACKAGE}.{owner}.{entry.name}"
    elif spec.type in _TYPES:
        field.type = _TYPES[spec.type]
    else:
        field.type, field.type_name = 11, f".{PACKAGE}.{spec.type}"
