"""The Open Inference Protocol over HTTP and gRPC: the same answers as `/v1/classify`, in both forms of tensors."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from llmchain_fl.serve.app import make_app
from llmchain_fl.serve.oip_messages import MESSAGES, METHODS, SERVICE, message
from llmchain_fl.serve.settings import Bounds

HEADERS = {"authorization": "Bearer lfl_north"}
TEXTS = ["card lost", "pay", "wörld"]
HEADER = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def service(small: Any, tools: Any) -> Iterator[Any]:
    told = tools.settings({"north": ["a1@1", "a2@1"], "south": ["a3@1"]}, bounds=Bounds(inputs=4))
    with tools.running(tools.adapters(small, 3), told) as found:
        yield found


@pytest.fixture(scope="module")
def north(service: Any) -> TestClient:
    return TestClient(make_app(service), headers=HEADERS)


@pytest.fixture(scope="module")
def expected(north: TestClient) -> list[dict[str, Any]]:
    found = north.post("/v1/classify", json={"input": TEXTS}).json()["results"]
    return [{name: one[name] for name in ("label", "probability", "abstain")} for one in found]


def columns(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    named = {one["name"]: one["data"] for one in outputs}
    return [dict(zip(named, row, strict=True)) for row in zip(*named.values(), strict=True)]


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "text", "shape": [3], "datatype": "BYTES", "data": TEXTS, **changes}


def packed(texts: list[str]) -> bytes:
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)


def test_metadata_says_what_a_model_takes_and_gives(north: TestClient) -> None:
    told = north.get("/v2/models/a1/versions/1").json()
    assert told["versions"] == ["1"]
    assert told["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert {one["name"]: one["datatype"] for one in told["outputs"]} == {
        "label": "BYTES",
        "probability": "FP32",
        "abstain": "BOOL",
    }
    assert north.get("/v2/models/a1/ready").json() == {"name": "a1", "ready": True}
    assert north.get("/v2/models/a3").status_code == north.get("/v2/models/none/ready").status_code == 404
    assert north.get("/v2/models/a3").json() == {"error": "there is no such model for this token"}


@pytest.mark.parametrize("given", [tensor(), tensor(shape=[3, 1], data=[[text] for text in TEXTS])])
def test_json_tensors(north: TestClient, expected: Any, given: dict[str, Any]) -> None:
    answer = north.post("/v2/models/a1/infer", json={"id": "42", "inputs": [given]}).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("a1", "1", "42")
    assert columns(answer["outputs"]) == expected
    only = north.post("/v2/models/a1/infer", json={"inputs": [given], "outputs": [{"name": "label"}]}).json()
    assert [one["name"] for one in only["outputs"]] == ["label"]


def test_binary_tensors_both_ways(north: TestClient, expected: Any) -> None:
    data = packed(TEXTS)
    asked = tensor(parameters={"binary_data_size": len(data)})
    del asked["data"]
    head = json.dumps({"inputs": [asked], "parameters": {"binary_data_output": True}}).encode()
    answer = north.post("/v2/models/a1/infer", content=head + data, headers={HEADER: str(len(head))})
    size = int(answer.headers[HEADER])
    outputs, raw = json.loads(answer.content[:size])["outputs"], answer.content[size:]
    sizes = [one["parameters"]["binary_data_size"] for one in outputs]
    assert sum(sizes) == len(raw)
    assert raw[: sizes[0]] == packed([one["label"] for one in expected])
    assert struct.unpack("<3f", raw[sizes[0] : sizes[0] + 12]) == pytest.approx(
        [one["probability"] for one in expected], abs=1e-7
    )
    assert list(raw[sizes[0] + 12 :]) == [int(one["abstain"]) for one in expected]


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": []},
        {"inputs": [tensor(), tensor()]},
        {"inputs": [tensor(shape=[2])]},
        {"inputs": [tensor(shape=[3, 2])]},
        {"inputs": [tensor(shape=[10**18, 10**18])]},
        {"inputs": [tensor(datatype="FP32")]},
        {"inputs": [tensor(data=["", "", ""])]},
        {"inputs": [tensor(shape=[5], data=["a"] * 5)]},
        {"inputs": [tensor()], "outputs": [{"name": "Jane-Canary"}]},
        {"inputs": [{**tensor(), "parameters": {"binary_data_size": 4}}]},
        {"Jane-Canary": 1},
    ],
)
def test_a_bad_inference_is_a_400_that_quotes_nothing(north: TestClient, body: Any) -> None:
    answer = north.post("/v2/models/a1/infer", json=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}
    assert "Jane" not in answer.text


@pytest.mark.parametrize(
    ("size", "data"), [("9999", b""), ("x", b""), ("0", b"\xff\xff\xff\xff"), (None, b"{"), ("-1", b"")]
)
def test_a_header_or_binary_part_that_does_not_fit_is_a_400(north: TestClient, size: str | None, data: bytes) -> None:
    headers = {} if size is None else {HEADER: size}
    assert north.post("/v2/models/a1/infer", content=data, headers=headers).status_code == 400


def test_binary_data_that_is_cut_off_is_a_400(north: TestClient) -> None:
    for data in (packed(TEXTS)[:-1], packed(TEXTS) + b"\x01", b"\x05\x00\x00\x00\xff\xff\xff\xff\xff"):
        asked = tensor(parameters={"binary_data_size": len(data)}, shape=[1])
        del asked["data"]
        head = json.dumps({"inputs": [asked]}).encode()
        answer = north.post("/v2/models/a1/infer", content=head + data, headers={HEADER: str(len(head))})
        assert answer.status_code == 400


@pytest.fixture(scope="module")
def channel(service: Any) -> Iterator[Any]:
    """A channel to a gRPC server on a loop of its own."""
    import grpc

    from llmchain_fl.serve.oip_grpc import GrpcServer

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def on_loop(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(20)

    async def made() -> GrpcServer:
        server = GrpcServer(service, "127.0.0.1", 0)
        await server.start()
        return server

    server = on_loop(made())
    on_loop(server.tell(ready=True))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as found:
        yield found
    on_loop(server.stop(1))
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


def ask(channel: Any, method: str, token: str = "lfl_north", **fields: Any) -> Any:
    call = channel.unary_unary(
        f"/{SERVICE}/{method}",
        request_serializer=message(f"{method}Request").SerializeToString,
        response_deserializer=message(f"{method}Response").FromString,
    )
    metadata = [("authorization", f"Bearer {token}")] if token else []
    return call(message(f"{method}Request")(**fields), metadata=metadata, timeout=20)


def test_grpc_answers_as_http_does(channel: Any, expected: Any) -> None:
    given = {"name": "text", "datatype": "BYTES", "shape": [3]}
    texts = [text.encode() for text in TEXTS]
    plain = ask(
        channel, "ModelInfer", model_name="a1", id="7", inputs=[{**given, "contents": {"bytes_contents": texts}}]
    )
    assert (plain.model_name, plain.model_version, plain.id) == ("a1", "1", "7")
    label, chance, abstain = plain.outputs
    assert [text.decode() for text in label.contents.bytes_contents] == [one["label"] for one in expected]
    assert list(chance.contents.fp32_contents) == pytest.approx([one["probability"] for one in expected], abs=1e-7)
    assert list(abstain.contents.bool_contents) == [one["abstain"] for one in expected]
    raw = ask(
        channel, "ModelInfer", model_name="a1", model_version="1", inputs=[given], raw_input_contents=[packed(TEXTS)]
    )
    assert raw.raw_output_contents[0] == packed([one["label"] for one in expected])
    assert not raw.outputs[0].HasField("contents")


def test_grpc_probes_metadata_and_the_health_service(channel: Any) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    assert ask(channel, "ServerLive", token="").live
    assert ask(channel, "ServerReady", token="").ready
    assert ask(channel, "ServerMetadata", token="").name == "llmchain-fl"
    assert ask(channel, "ModelReady", name="a1").ready
    assert [one.name for one in ask(channel, "ModelMetadata", name="a2").outputs] == ["label", "probability", "abstain"]
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        assert stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=20).status == 1


@pytest.mark.parametrize(
    ("token", "name", "inputs", "code"),
    [
        ("", "a1", [], "UNAUTHENTICATED"),
        ("lfl_nobody", "a1", [], "UNAUTHENTICATED"),
        ("lfl_north", "a3", None, "NOT_FOUND"),
        ("lfl_north", "", None, "NOT_FOUND"),
        ("lfl_north", "a1", [], "INVALID_ARGUMENT"),
        ("lfl_north", "a1", [{"name": "t", "datatype": "BYTES", "shape": [-1]}], "INVALID_ARGUMENT"),
        ("lfl_north", "a1", [{"name": "t", "datatype": "FP32", "shape": [1]}], "INVALID_ARGUMENT"),
    ],
)
def test_grpc_refuses_as_http_does(channel: Any, token: str, name: str, inputs: Any, code: str) -> None:
    import grpc

    fine = [{"name": "t", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"card"]}}]
    with pytest.raises(grpc.RpcError) as error:
        ask(channel, "ModelInfer", token, model_name=name, inputs=fine if inputs is None else inputs)
    assert error.value.code().name == code


def test_every_message_is_on_the_wire_as_in_the_protocols_own_file() -> None:
    """Names and numbers of ``open_inference_grpc.proto``, by another client's generated module."""
    theirs = pytest.importorskip("tritonclient.grpc.service_pb2", reason="tritonclient is not installed")
    for name, fields in MESSAGES.items():
        found: Any = theirs
        for part in name.split("."):
            found = getattr(found, part)
        known = {field.name: field.number for field in found.DESCRIPTOR.fields}
        assert {field: spec.number for field, spec in fields.items() if field in known or "param" not in field} == {
            field: number for field, number in known.items() if field in fields
        }, name
    assert all(f"{name}Request" in MESSAGES for name in METHODS)


def test_a_triton_client_works_unchanged(channel: Any, service: Any, expected: Any) -> None:
    """Over gRPC, against the port of the channel; and its bytes are what our messages read."""
    grpcclient = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    import numpy as np

    target = channel._channel.target().decode().rpartition("/")[2]
    client = grpcclient.InferenceServerClient(target)
    headers = {"authorization": "Bearer lfl_north"}
    assert client.is_server_live()
    assert client.is_model_ready("a1", headers=headers)
    given = grpcclient.InferInput("text", [3], "BYTES")
    given.set_data_from_numpy(np.array(TEXTS, dtype=object))
    answer = client.infer("a1", [given], headers=headers)
    assert [text.decode() for text in answer.as_numpy("label")] == [one["label"] for one in expected]
    assert answer.as_numpy("probability").tolist() == pytest.approx([one["probability"] for one in expected], abs=1e-7)
