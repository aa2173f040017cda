"""The Open Inference Protocol over gRPC, with the standard health service beside it, on the loop of the HTTP server.

The token travels as the metadata ``authorization: Bearer ...``; the two server probes ask for none.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from llmchain_fl.serve import refusals
from llmchain_fl.serve.oip import BYTES, Given, decoded, infer, let_in, metadata, model_of, server_metadata, texts_of
from llmchain_fl.serve.oip_messages import METHODS, SERVICE, message
from llmchain_fl.serve.service import Service
from llmchain_fl.serve.tenants import Caller

CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_CONTENTS = {"BYTES": "bytes_contents", "FP32": "fp32_contents", "BOOL": "bool_contents"}
log = logging.getLogger("llmchain_fl.serve")
Handler = Callable[[Any, Caller | None], Awaitable[Any]]


class Inference:
    """The methods, each a message in and a message out."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.methods: Mapping[str, tuple[Handler, bool]] = {
            "ServerLive": (self._live, False),
            "ServerReady": (self._ready, False),
            "ServerMetadata": (self._server, False),
            "ModelReady": (self._model_ready, True),
            "ModelMetadata": (self._about, True),
            "ModelInfer": (self._infer, True),
        }

    async def _live(self, _asked: Any, _caller: Caller | None) -> Any:
        return message("ServerLiveResponse")(live=True)

    async def _ready(self, _asked: Any, _caller: Caller | None) -> Any:
        return message("ServerReadyResponse")(ready=self._service.ready)

    async def _server(self, _asked: Any, _caller: Caller | None) -> Any:
        return message("ServerMetadataResponse")(**server_metadata())

    async def _model_ready(self, asked: Any, caller: Caller | None) -> Any:
        assert caller is not None
        model_of(self._service, caller, asked.name, asked.version)
        return message("ModelReadyResponse")(ready=self._service.ready)

    async def _about(self, asked: Any, caller: Caller | None) -> Any:
        assert caller is not None
        return message("ModelMetadataResponse")(**metadata(model_of(self._service, caller, asked.name, asked.version)))

    async def _infer(self, asked: Any, caller: Caller | None) -> Any:
        assert caller is not None
        given = _given(asked)
        call, texts = let_in(self._service, caller, asked.model_name, asked.model_version, given)
        try:
            found = await infer(self._service, call, texts, [one.name for one in asked.outputs])
        finally:
            call.gone.set()
        told = message("ModelInferResponse")(
            model_name=found.served.name, model_version=found.served.version, id=asked.id
        )
        told.parameters["adapter"].string_param = found.served.address
        for one in found.outputs:
            tensor = told.outputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
            if asked.raw_input_contents:  # who sends raw contents reads them
                told.raw_output_contents.append(one.raw())
            else:
                values = [str(v).encode() for v in one.values] if one.datatype == BYTES else one.values
                getattr(tensor.contents, _CONTENTS[one.datatype]).extend(values)
        return told


def _given(asked: Any) -> list[Given]:
    raw = list(asked.raw_input_contents)
    if raw and (len(raw) != len(asked.inputs) or any(one.HasField("contents") for one in asked.inputs)):
        raise refusals.bad("inputs", "raw contents for each tensor, and no others beside them")
    found = []
    for place, one in enumerate(asked.inputs):
        if one.datatype != BYTES:
            raise refusals.bad("inputs", "a tensor of BYTES of shape [n] or [n, 1]")
        if any(size < 0 for size in one.shape):
            raise refusals.bad("inputs", "a shape with a negative size")
        texts = texts_of(raw[place]) if raw else [decoded(part) for part in one.contents.bytes_contents]
        found.append(Given(one.name, one.datatype, tuple(one.shape), texts))
    return found


def _handled(service: Service, name: str, handler: Handler, asks_token: bool) -> Any:
    async def handle(asked: Any, context: Any) -> Any:
        code, words, answer = grpc.StatusCode.OK, "", None
        try:
            told = dict(context.invocation_metadata() or ())
            caller = service.caller(str(told.get("authorization", ""))) if asks_token else None
            answer = await handler(asked, caller)
        except refusals.ApiError as error:
            code, words = CODES.get(error.status, grpc.StatusCode.INTERNAL), error.message
        except Exception as error:  # its text may hold what was asked
            log.error("%s failed: %s", name, type(error).__name__)
            code, words = grpc.StatusCode.INTERNAL, refusals.broken().message
        service.metrics.count("requests_total", route=f"grpc {name}", status=code.name)
        if answer is None:
            await context.abort(code, words)
        return answer

    return grpc.unary_unary_rpc_method_handler(
        handle,
        request_deserializer=message(f"{name}Request").FromString,
        response_serializer=message(f"{name}Response").SerializeToString,
    )


class GrpcServer:
    """The server; :meth:`start` opens its port, within a running loop."""

    def __init__(self, service: Service, host: str, port: int) -> None:
        self._service, self._host, self.port = service, host, port
        self._health = health.aio.HealthServicer()
        self._server: Any = None

    async def start(self) -> None:
        """Open the port; ``port`` is the one that was taken.

        Raises:
            RuntimeError: it cannot be had.
        """
        most = self._service.settings.bounds.body_bytes
        options = [("grpc.max_receive_message_length", most), ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(options=options)
        methods = {name: _handled(self._service, name, *Inference(self._service).methods[name]) for name in METHODS}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port = self._server.add_insecure_port(f"{self._host}:{self.port}")
        await self.tell(ready=False)
        await self._server.start()

    async def tell(self, *, ready: bool) -> None:
        """What the health service says, of the server and of the inference service."""
        state = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, state)

    async def stop(self, patience: float) -> None:
        """Take nothing new, answer what is under way."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(patience)
