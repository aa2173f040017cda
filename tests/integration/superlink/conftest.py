"""A SuperLink and two SuperNodes of this machine, for the tests of this folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from client.site import read_site
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.privacy.ledger import FileLedger

DELTA = 1e-4
SITE = """
name = "{name}"
state = "state"

[data]
train = "{{stage}}.jsonl"

[limits]
require_privacy = true
epsilon = {epsilon}
delta = {delta}
base_models = ["{model}"]
"""


class Lab:
    """A SuperLink and two SuperNodes on this machine, each site with a folder of its own."""

    def __init__(self, folder: Path, environment: dict[str, str], app: Path, free_port: Callable[[], int]) -> None:
        self.folder, self._environment, self._app = folder, environment, app
        self._free_port, self._model = free_port, Path()
        self._started: list[subprocess.Popen[bytes]] = []
        self._port = free_port()

    def start(self, tiny: Any) -> None:
        """Bring everything up; returns when the SuperLink answers."""
        self._model = tiny.model
        Path(self._environment["FLWR_HOME"]).mkdir()
        address = f'address = "127.0.0.1:{self._port}"\ninsecure = true\n'
        (Path(self._environment["FLWR_HOME"]) / "config.toml").write_text(f"[superlink.lab]\n{address}")
        link = ("--insecure", "--host", "127.0.0.1", "--disable-runtime-dependency-installation")
        self._spawn("superlink", "flower-superlink", *link, "--port", str(self._port))
        self._await_superlink()
        for name in ("north", "south"):
            self.connect(name, tiny)

    def connect(self, name: str, tiny: Any) -> subprocess.Popen[bytes]:
        """One more data holder, and its SuperNode."""
        self.write_site(name, epsilon=50.0)
        for stage in ("first", "second"):
            shutil.copy(tiny.train, self.folder / name / f"{stage}.jsonl")
        node = ("--insecure", "--superlink", f"127.0.0.1:{self._port}", "--host", "127.0.0.1")
        site = ("--port", str(self._free_port()), "--node-config", f'site="{self.folder / name / "site.toml"}"')
        return self._spawn(name, "flower-supernode", *node, *site)

    def write_site(self, name: str, epsilon: float) -> None:
        """The site file of one data holder."""
        (self.folder / name).mkdir(exist_ok=True)
        text = SITE.format(name=name, epsilon=epsilon, delta=DELTA, model=base_digest(self._model))
        (self.folder / name / "site.toml").write_text(text)

    def ledger(self, name: str) -> FileLedger:
        """The ledger that a site keeps on its own disk."""
        return read_site(self.folder / name / "site.toml").open_ledger("person")

    def steps(self, name: str) -> int:
        """Private steps that a site has paid for; every round of these runs has two."""
        return sum(event.steps for event in self.ledger(name).spent().events)

    def flwr(self, *arguments: str) -> str:
        """Run ``flwr``; its output, both streams."""
        done = subprocess.run(
            ["flwr", *arguments], env=self._environment, cwd=self.folder, timeout=1200,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    def submit(self, *, stream: bool = True, resume: bool = False, **settings: str) -> tuple[str, str]:
        """``flwr run``: the number of the run, and its log if it is streamed."""
        config = " ".join(f'{key}="{value}"' for key, value in settings.items()) + (" resume=true" if resume else "")
        options = ["--stream"] if stream else []
        said = self.flwr("run", str(self._app), "lab", *options, "--run-config", config)
        return said.partition("Successfully started run ")[2].split()[0], said

    def entry(self, number: str) -> dict[str, Any]:
        """What ``flwr list`` says of a run; the exit code of ``flwr run`` says nothing."""
        listed: list[dict[str, Any]] = json.loads(self.flwr("list", "lab", "--run-id", number, "--format", "json"))[
            "runs"
        ]
        return listed[0]

    def stop(self) -> None:
        """End everything that was started, gently first."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=60)

    def _spawn(self, name: str, command: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            self._started.append(
                subprocess.Popen(
                    [command, *arguments], env=self._environment, cwd=self.folder, stdout=log,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )
            )  # fmt: skip
        return self._started[-1]

    def _await_superlink(self) -> None:
        end = time.monotonic() + 240
        while time.monotonic() < end and self._started[0].poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return
            time.sleep(0.2)
        pytest.fail((self.folder / "superlink.log").read_text())


@pytest.fixture(scope="module")
def lab(
    tiny: Any,
    app: Path,
    only_the_bundle: Callable[[], dict[str, str]],
    free_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    """Up for all tests of this file."""
    made = Lab(tmp_path_factory.mktemp("lab"), only_the_bundle(), app, free_port)
    try:
        made.start(tiny)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def private(tiny: Any) -> Callable[[Path], Path]:
    """Writes a scenario for two private sites; ``data.train`` is a word: the records are at the sites."""

    def write(path: Path) -> Path:
        privacy = {"enabled": True, "noise_multiplier": 1.0, "delta": DELTA}
        sites = {"count": 2, "held_out": 0.0}
        return Path(tiny.scenario(path, sites=sites, privacy=privacy, data={"train": "at-the-sites"}))

    return write
