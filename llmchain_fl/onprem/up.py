"""``site_up`` and ``coordinator_up``: the processes of a site and of the coordinator, under one supervisor each."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.privacy.durable import make_folder
from llmchain_fl.core.toml_file import read_toml
from llmchain_fl.onprem.flower_version import check_flower
from llmchain_fl.onprem.process import RealProcess
from llmchain_fl.onprem.reach import unreachable
from llmchain_fl.onprem.settings import CoordinatorSettings, SiteSettings
from llmchain_fl.onprem.supervisor import Part, Supervisor

log = logging.getLogger("llmchain_fl.up")
SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # torch asks whether there is a GPU without touching it
}
"""Environment of every process that is started here."""
WRITE_ONE = "write one; docs/on-premise.md shows it"


def site_up(settings: SiteSettings) -> None:
    """Run a site until it is told to stop: a SuperNode and the site's own executor.

    Raises:
        ConfigError: faults in what was given, or the site is up already.
    """
    check_flower()
    settings.check()
    state = settings.site.parent / str(read_toml(settings.site, "site file", remedy=WRITE_ONE).get("state") or "state")
    make_folder(state.absolute())
    with _alone(state / ".up.lock", f"the site of {settings.site}"), _secret() as secret:
        runtime = f"127.0.0.1:{settings.port or _free_port()}"
        _keep_up([_supernode(settings, runtime, secret), _site_executor(settings, runtime, secret)])


def coordinator_up(settings: CoordinatorSettings) -> None:
    """Run the coordinator until it is told to stop: a SuperLink and an executor that plays runs.

    Raises:
        ConfigError: faults in what was given.
    """
    check_flower()
    settings.check()
    with _secret() as secret:
        _keep_up([_superlink(settings, secret), _server_executor(settings, secret)])


def _supernode(settings: SiteSettings, runtime: str, secret: Path) -> Part:
    port = runtime.rpartition(":")[2]
    words = ["--superlink", settings.superlink, "--host", "127.0.0.1", "--port", port, "--isolation", "process"]
    words += ["--superexec-auth-secret-file", str(secret)]
    words += ["--insecure"] if settings.insecure else []
    words += ["--root-certificates", str(settings.root_certificates)] if settings.root_certificates else []
    words += ["--auth-supernode-private-key", str(settings.key)] if settings.key else []
    return Part(
        "supernode",
        lambda: _process("supernode", "run_flower", settings.environment, "flower-supernode", *words),
        lambda: unreachable(settings.superlink, settings.root_certificates, settings.insecure),
    )


def _site_executor(settings: SiteSettings, runtime: str, secret: Path) -> Part:
    words = ("--site", str(settings.site.resolve()), "--runtime", runtime, "--secret", str(secret))
    return Part("executor", lambda: _process("executor", "run_site_executor", settings.environment, *words))


def _superlink(settings: CoordinatorSettings, secret: Path) -> Part:
    words = ["--host", settings.host, "--port", str(settings.port), "--disable-runtime-dependency-installation"]
    words += ["--isolation", "process", "--superexec-auth-secret-file", str(secret)]
    if settings.insecure:
        words += ["--insecure"]
    else:
        words += ["--ssl-ca-certfile", str(settings.ca), "--ssl-certfile", str(settings.certificate)]
        words += ["--ssl-keyfile", str(settings.key)]
        words += ["--enable-supernode-auth"] if settings.known_sites else []
    words += ["--database", str(settings.database)] if settings.database else []
    return Part(
        "superlink",
        lambda: _process("superlink", "run_flower", settings.environment, "flower-superlink", *words),
        answers=lambda: _listens(settings.reached_at, settings.port),
        answered=settings.on_answer,
    )


def _server_executor(settings: CoordinatorSettings, secret: Path) -> Part:
    words = ["--runtime", f"{settings.reached_at}:{settings.port}", "--secret", str(secret)]
    words += ["--root-certificates", str(settings.ca)] if settings.ca else []
    return Part("executor", lambda: _process("executor", "run_server_executor", settings.environment, *words))


def _process(name: str, module: str, more: Mapping[str, str], *words: str) -> RealProcess:
    """A module of this folder in a process of its own; ``-P``: nothing is imported from the folder it is started in."""
    command = [sys.executable, "-P", "-m", f"llmchain_fl.onprem.{module}", "--parent", str(os.getpid()), *words]
    return RealProcess(name, command, {**os.environ, **SWITCHES, **more})


def _keep_up(parts: Sequence[Part]) -> None:
    """Until SIGTERM (which is no error), or Ctrl-C (which is passed on)."""
    stopping = threading.Event()
    _log_here()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    heeded = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}  # nohup has said what SIGHUP means
    try:
        Supervisor(parts).run(lambda: not stopping.is_set())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    log.info("stopped")


def _log_here() -> None:
    """The supervisor's own lines beside those of its processes, also where nothing else is logged."""
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("[up] %(message)s"))
        log.addHandler(handler)
    log.propagate = False
    level = logging.getLogger("llmchain_fl").level
    log.setLevel(level if level >= logging.ERROR else logging.INFO)


@contextmanager
def _alone(lock: Path, who: str) -> Iterator[None]:
    """Two executors over one ledger would each wait for the other, and Flower would take only one SuperNode."""
    held = FileLock(lock, timeout=0, mode=0o600)
    try:
        held.acquire()
    except Timeout:
        raise ConfigError([f"{who} is up already"], remedy="end the other `llmchain-fl site up` first") from None
    try:
        yield
    finally:
        held.release()


@contextmanager
def _secret() -> Iterator[Path]:
    """A fresh secret for the processes of this supervisor, in a folder of the owner's; gone when they are."""
    with tempfile.TemporaryDirectory(prefix="llmchain-fl-") as folder:
        file = Path(folder) / "secret"
        file.touch(mode=0o600)
        file.write_bytes(secrets.token_bytes(32))
        yield file


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
