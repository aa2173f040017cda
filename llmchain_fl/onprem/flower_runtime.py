"""Every name of Flower's inside that the executors use; ``flower_version.py`` says with which versions it was tried.
(What is mended inside a SuperNode: ``flower_supernode.py``.)

Flower's own retries and heartbeats are not used: where a SuperNode has forgotten a task they send this very process a
SIGINT, which a process for one message may take and a resident one must not.
"""

from __future__ import annotations

from collections.abc import Sequence
from queue import Queue
from typing import cast

import httpx
from flwr.app import Context, Message
from flwr.common.constant import ErrorCode
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.auth import load_superexec_auth_secret
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.logger import mirror_output_to_queue
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.runtime import run_serverapp
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from llmchain_fl.onprem.task import Access, NotWanted, Pulled

CLIENT_APP, AGENT_APP, SERVER_APP = TaskType.CLIENT_APP, TaskType.AGENT_APP, TaskType.SERVER_APP
ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
COMPLETED, FAILED = "completed", "failed"
REFUSED, RAISED = ErrorCode.INVALID_FAB, ErrorCode.CLIENT_APP_RAISED_EXCEPTION
Signs = tuple[ProtobufClientInterceptor, ...]
TRIES, MOST_SECONDS = 4, 20.0
GONE = (401, 403, 404)
"""What the runtime API answers for a task that is no longer ours."""


class RuntimeTasks:
    """Tasks of these kinds, from a SuperNode or a SuperLink."""

    def __init__(self, access: Access, kinds: Sequence[str]) -> None:
        self._access, self._kinds = access, list(kinds)
        secret = load_superexec_auth_secret(secret_file=str(access.secret))
        signs = SuperExecAuthHttpInterceptor(master_secret=secret or b"", protected_methods={ACQUIRE})
        self._client = _client(access, (RuntimeVersionHttpInterceptor(component_name="SuperExec"), signs))

    def token(self) -> tuple[str, str] | None:
        """(kind, token) of the oldest task that waits; None where there is none."""
        request = AcquireTaskRequest(supported_task_types=self._kinds, agentapp_fab_hashes=[])
        response = self._client.AcquireTask(request)
        return (response.task.type, response.token) if response.HasField("task") and response.token else None

    def acquire(self) -> RuntimeTask | None:
        """The same, ready to be answered."""
        token = self.token()
        return None if token is None else RuntimeTask(self._access, *token)


class RuntimeTask:
    """One task of a SuperNode."""

    def __init__(self, access: Access, kind: str, token: str) -> None:
        self.kind = kind
        version = RuntimeVersionHttpInterceptor(component_name="flwr-clientapp")
        signs: Signs = (version, RuntimeTokenHttpInterceptor(token))
        self._client, self._beats = _client(access, signs, _patient()), _client(access, signs)
        self._context: Context | None = None

    def pull(self) -> Pulled:
        """The message, its context, and the bundle as bytes: nothing of it is unpacked.

        Raises:
            OSError: the SuperNode has dropped the task meanwhile.
        """
        try:
            message, self._context, _, bundle = pull_task_input(cast(RuntimeHttpClient, _MessageFirst(self._client)))
        except httpx.HTTPStatusError as error:
            if error.response.status_code in GONE:
                raise OSError("the task is withdrawn") from error
            raise
        return Pulled(message, self._context, bundle.content)

    def beat(self) -> bool:
        """Whether the task is still ours."""
        try:
            return bool(self._beats.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success)
        except httpx.HTTPStatusError as error:
            if error.response.status_code in GONE:
                return False
            raise

    def push(self, reply: Message) -> None:
        """Hand the reply over, with all it holds.

        Raises:
            NotWanted: the SuperNode has dropped it. It must not get another one: it would take that for the answer to
                the next message.
            OSError: the SuperNode could not be reached for a while, or no longer knows the task.
        """
        if self._context is None:
            raise RuntimeError("a reply before its message")
        try:
            push_message(self._client, reply, self._context)
        except ObjectPushError:
            raise NotWanted from None
        except httpx.HTTPError as fault:
            raise OSError(type(fault).__name__) from fault

    def finish(self, done: bool) -> None:
        """Say that the task is over."""
        status, details = (COMPLETED, "") if done else (FAILED, "see the site's log")
        push_task_output(self._client, self._context, status, details)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._beats.close()


class _MessageFirst:
    """Flower's client, by which the message is taken before its task is begun, and not after.

    A task that was begun fails after a minute without a heartbeat, and only a message that was taken is then answered
    for: killed between the two the other way round, an executor would leave a message that nobody is ever given, and a
    SuperNode that waits for its answer for ever.

    =====================================  ===========================================================================
    the executor is killed                 then
    =====================================  ===========================================================================
    before the message is taken            the claim ends after a minute; the next executor is given task and message
    taken, the task not begun              the same; it finds no message, leaves the task, Flower answers a minute later
    the task begun                         Flower answers for it after a minute
    =====================================  ===========================================================================
    """

    def __init__(self, client: RuntimeHttpClient) -> None:
        self._client = client
        self._told = client.PullMessages(PullAppMessagesRequest())

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:
        """What was taken; Flower asks after it has begun the task."""
        return self._told

    def __getattr__(self, name: str) -> object:
        return getattr(self._client, name)


def play_server_app(access: Access, token: str, watched: int) -> None:
    """Play one ServerApp in this process, as Flower's own does; ends with SystemExit. ``watched``: ends with it."""
    said: Queue[str | None] = Queue()
    mirror_output_to_queue(said)
    run_serverapp(
        runtime_api_address=access.address,
        log_queue=said,
        token=token,
        insecure=access.root_certificates is None,
        certificates=_certificates(access),
        parent_pid=watched,
        runtime_dependency_install=False,
    )


def _client(access: Access, interceptors: Signs, retry: RetryInvoker | None = None) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        server_address=access.address,
        insecure=access.root_certificates is None,
        root_certificates=_certificates(access),
        interceptors=interceptors,
        retry_invoker=retry,
    )


def _certificates(access: Access) -> bytes | None:
    return None if access.root_certificates is None else access.root_certificates.read_bytes()


def _patient() -> RetryInvoker:
    """Tries again where the connection failed; raises what the last try raised."""
    return RetryInvoker(lambda: exponential(max_delay=5), httpx.TransportError, TRIES, MOST_SECONDS)
