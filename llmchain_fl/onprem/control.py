"""Flower's control API of the coordinator's SuperLink: the one file here that knows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListNodesResponse,
    ListRunsRequest,
    ListRunsResponse,
    RegisterNodeRequest,
    RegisterNodeResponse,
    StartRunRequest,
    StartRunResponse,
    StopRunRequest,
    StopRunResponse,
    UnregisterNodeRequest,
    UnregisterNodeResponse,
)

from llmchain_fl.core.errors import RunError

A = TypeVar("A")
B = TypeVar("B")


class Control(Protocol):
    """What is asked of it (of Flower's ``ControlHttpClient``)."""

    def ListNodes(self, request: ListNodesRequest) -> ListNodesResponse: ...
    def RegisterNode(self, request: RegisterNodeRequest) -> RegisterNodeResponse: ...
    def UnregisterNode(self, request: UnregisterNodeRequest) -> UnregisterNodeResponse: ...
    def StartRun(self, request: StartRunRequest) -> StartRunResponse: ...
    def ListRuns(self, request: ListRunsRequest) -> ListRunsResponse: ...
    def StopRun(self, request: StopRunRequest) -> StopRunResponse: ...


@contextmanager
def control_of(address: str, authority: Path) -> Iterator[Control]:
    """The control API at HOST:PORT, by TLS under the authority in a file; closed afterwards."""
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    version = RuntimeVersionHttpInterceptor(component_name="flwr CLI")
    client = ControlHttpClient.from_server_address(
        server_address=address, insecure=False, root_certificates=authority.read_bytes(), interceptors=[version]
    )
    try:
        yield client
    finally:
        client.close()


def ask(action: str, method: Callable[[A], B], request: A) -> B:
    """One question; ``action`` the SuperLink is to do, for the error.

    Raises:
        RunError: it does not answer, or refuses.
    """
    try:
        return method(request)
    except Exception as error:
        raise refused(action, error) from error


def code_of(error: BaseException | None) -> int | None:
    """Flower's own code in the answer, where there is one."""
    from flwr.supercore.error import FlowerError

    text = getattr(getattr(error, "response", None), "text", None)
    flower_error = error if isinstance(error, FlowerError) else FlowerError.from_json(text)
    return int(flower_error.code) if flower_error is not None else None


def refused(action: str, error: Exception) -> RunError:
    """The error of a SuperLink that did not do ``action``."""
    code = code_of(error)
    detail = f"code {code}" if code is not None else type(error).__name__
    return RunError(
        f"the SuperLink did not {action} ({detail})",
        remedy="see whether it runs, and its log; its control API must be reachable from this machine",
    )
