"""The Open Inference Protocol over HTTP, with the binary tensor extension of Triton and KServe clients.

A body is JSON, or JSON followed by binary data, whose length in front the header ``Inference-Header-Content-Length``
tells; an output is answered in binary where the request asks for it (``binary_data``, ``binary_data_output``).
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmchain_fl.serve import refusals
from llmchain_fl.serve.attend import attended, caller_of
from llmchain_fl.serve.oip import (
    BYTES,
    Gave,
    Given,
    Inferred,
    infer,
    let_in,
    metadata,
    model_of,
    server_metadata,
    texts_of,
)
from llmchain_fl.serve.service import Service

HEADER = "inference-header-content-length"
MOST_TENSORS = 16
Name = Annotated[str, Field(max_length=200)]


class Parameters(BaseModel):
    """Those that are known; others say nothing to this server."""

    model_config = ConfigDict(extra="ignore", strict=True)
    binary_data_size: Annotated[int, Field(ge=0)] | None = None
    binary_data: bool = False
    binary_data_output: bool = False


class TensorIn(BaseModel):
    """An input."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: Name
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=8)]
    datatype: Annotated[str, Field(max_length=16)]
    parameters: Parameters = Parameters()
    data: list[str] | list[list[str]] | None = None


class TensorOut(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: Name
    parameters: Parameters = Parameters()


class InferBody(BaseModel):
    """`POST /v2/models/NAME/infer`."""

    model_config = ConfigDict(extra="forbid", strict=True)
    id: Name = ""
    parameters: Parameters = Parameters()
    inputs: Annotated[list[TensorIn], Field(min_length=1, max_length=MOST_TENSORS)]
    outputs: Annotated[list[TensorOut], Field(max_length=MOST_TENSORS)] = []


def oip_routes(service: Service) -> APIRouter:
    """The routes over ``service``."""
    router = APIRouter(prefix="/v2")

    @router.get("")
    async def server() -> dict[str, object]:
        """What this server is."""
        return server_metadata()

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        """Whether the process lives."""
        return {"live": True}

    @router.get("/health/ready", response_model=None)
    async def ready() -> Response:
        """Whether requests are answered."""
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @router.get("/models/{name}")
    @router.get("/models/{name}/versions/{version}")
    async def about(request: Request, name: str, version: str = "") -> dict[str, object]:
        """What one model takes and gives."""
        return metadata(model_of(service, caller_of(request), name, version))

    @router.get("/models/{name}/ready")
    @router.get("/models/{name}/versions/{version}/ready")
    async def model_ready(request: Request, name: str, version: str = "") -> dict[str, object]:
        """Whether this token's requests to it are answered."""
        served = model_of(service, caller_of(request), name, version)
        return {"name": served.name, "ready": service.ready}

    @router.post("/models/{name}/infer", response_model=None)
    @router.post("/models/{name}/versions/{version}/infer", response_model=None)
    async def inference(request: Request, name: str, version: str = "") -> Response:
        """Texts -> the task's outputs."""
        body, binary = _parsed(await request.body(), request.headers.get(HEADER))
        call, texts = let_in(service, caller_of(request), name, version, _given(body, binary))
        found = await attended(request, call, infer(service, call, texts, [one.name for one in body.outputs]))
        return _response(body, found)

    return router


def _parsed(data: bytes, told: str | None) -> tuple[InferBody, bytes]:
    size = len(data)
    if told is not None:
        if not told.isdigit() or len(told) > 12 or int(told) > size:
            raise refusals.bad("inputs", f"the header {HEADER} does not fit the body")
        size = int(told)
    try:
        return InferBody.model_validate_json(data[:size]), data[size:]
    except ValidationError as error:
        reason = error.errors()[0]["type"]
    raise refusals.bad("body", f"no inference request ({reason})")


def _given(body: InferBody, binary: bytes) -> list[Given]:
    found, place = [], 0
    for tensor in body.inputs:
        size = tensor.parameters.binary_data_size
        if (size is None) == (tensor.data is None):
            raise refusals.bad("inputs", "data, or binary_data_size")
        if size is not None:
            texts = texts_of(binary[place : place + size]) if tensor.datatype == BYTES else []
            place += size
        else:
            texts = [text for row in tensor.data or [] for text in ([row] if isinstance(row, str) else row)]
        found.append(Given(tensor.name, tensor.datatype, tuple(tensor.shape), texts))
    if place != len(binary):
        raise refusals.bad("inputs", "binary data of another size")
    return found


def _response(body: InferBody, found: Inferred) -> Response:
    binary = {one.name for one in body.outputs if one.parameters.binary_data}
    if body.parameters.binary_data_output:
        binary |= {one.name for one in found.outputs}
    raw = [one.raw() for one in found.outputs if one.name in binary]
    told: dict[str, Any] = {"model_name": found.served.name, "model_version": found.served.version}
    told |= {"id": body.id} if body.id else {}
    told["parameters"] = {"adapter": found.served.address}
    told["outputs"] = [_output(one, one.name in binary) for one in found.outputs]
    head = json.dumps(told).encode()
    if not raw:
        return Response(head, media_type="application/json")
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return Response(head + b"".join(raw), media_type="application/octet-stream", headers=headers)


def _output(one: Gave, binary: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
    if binary:
        return {**told, "parameters": {"binary_data_size": len(one.raw())}}
    return {**told, "data": list(one.values)}
