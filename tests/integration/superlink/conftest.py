"""A coordinator and two sites of this machine, for the tests of this folder.

``lab``: as on premises, each site answers from a resident executor. ``stock``: Flower's own processes, one a message.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from client.site import read_site
from llmchain_fl.adapter.files import read_adapter
from llmchain_fl.cli.apps import app_root
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.privacy.ledger import FileLedger
from llmchain_fl.run_dir import RunDir

DELTA = 1e-4
LLMCHAIN_FL = (sys.executable, "-m", "llmchain_fl")
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

[approved]
bundles = ["{bundle}"]
"""


class Lab:
    """A coordinator and two sites on this machine, each site with a folder of its own."""

    def __init__(
        self, folder: Path, environment: dict[str, str], app: Path, free_port: Callable[[], int], resident: bool
    ) -> None:
        self.folder, self.environment, self._app = folder, environment, app
        self._free_port, self._model, self._resident, self._bundle = free_port, Path(), resident, ""
        self._started: list[subprocess.Popen[bytes]] = []
        self._port = free_port()

    def start(self, tiny: Any) -> None:
        """Bring everything up; returns when the SuperLink answers."""
        self._model = tiny.model
        Path(self.environment["FLWR_HOME"]).mkdir()
        address = f'address = "127.0.0.1:{self._port}"\ninsecure = true\n'
        (Path(self.environment["FLWR_HOME"]) / "config.toml").write_text(f"[superlink.lab]\n{address}")
        self._bundle = self.digest(self._app)
        self._start_link()
        self._await_superlink()
        for name in ("north", "south"):
            self.connect(name, tiny)

    def _start_link(self) -> None:
        port = ("--insecure", "--port", str(self._port))
        if self._resident:
            self._spawn("superlink", *LLMCHAIN_FL, "coordinator", "up", *port)
        else:
            self._spawn("superlink", "flower-superlink", "--disable-runtime-dependency-installation", *port)

    def connect(self, name: str, tiny: Any) -> subprocess.Popen[bytes]:
        """One more data holder, and its processes."""
        self.write_site(name, epsilon=50.0)
        for stage in ("first", "second"):
            shutil.copy(tiny.train, self.folder / name / f"{stage}.jsonl")
        file, link = self.folder / name / "site.toml", ("--insecure", "--superlink", f"127.0.0.1:{self._port}")
        if self._resident:
            return self._spawn(name, *LLMCHAIN_FL, "site", "up", str(file), *link)
        site = ("--port", str(self._free_port()), "--node-config", f'site="{file}"')
        return self._spawn(name, "flower-supernode", *link, "--host", "127.0.0.1", *site)

    def digest(self, app: Path) -> str:
        """What a site that has read this app would approve."""
        place = self.folder / "built"
        place.mkdir()
        subprocess.run(["flwr", "build", "--app", str(app)], env=self.environment, cwd=place, check=True)
        data = next(place.glob("*.fab")).read_bytes()
        shutil.rmtree(place)
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    def log(self, name: str) -> str:
        """All that the processes of a site have said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def process(self, name: str, module: str) -> psutil.Process:
        """The process of a site, or of the coordinator, that runs this module."""
        for process in psutil.process_iter(["cmdline", "environ"]):
            words = process.info["cmdline"] or []
            ours = (process.info["environ"] or {}).get("FLWR_HOME") == self.environment["FLWR_HOME"]
            if ours and any(word.endswith(module) for word in words) and any(f"/{name}/" in word for word in words):
                return process
        pytest.fail(f"no process of {name} runs {module}")

    def write_site(self, name: str, epsilon: float) -> None:
        """The site file of one data holder."""
        (self.folder / name).mkdir(exist_ok=True)
        text = SITE.format(name=name, epsilon=epsilon, delta=DELTA, model=base_digest(self._model), bundle=self._bundle)
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
            ["flwr", *arguments], env=self.environment, cwd=self.folder, timeout=1200,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    def submit(
        self, *, stream: bool = True, resume: bool = False, app: Path | None = None, **settings: str
    ) -> tuple[str, str]:
        """``flwr run``: the number of the run, and its log if it is streamed."""
        config = " ".join(f'{key}="{value}"' for key, value in settings.items()) + (" resume=true" if resume else "")
        options = ["--stream"] if stream else []
        said = self.flwr("run", str(app or self._app), "lab", *options, "--run-config", config)
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

    def _spawn(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._started.append(
                subprocess.Popen(
                    list(command), env=self.environment, cwd=self.folder, stdout=log,
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


Parts = tuple[Any, Path, Callable[[], dict[str, str]], Callable[[], int]]


@contextlib.contextmanager
def up(folder: Path, parts: Parts, resident: bool) -> Iterator[Lab]:
    """A lab from its start to its end."""
    tiny, app, only_the_bundle, free_port = parts
    environment = only_the_bundle()
    if resident:
        environment["PYTHONPATH"] = str(app_root())  # what is installed at the site
    made = Lab(folder, environment, app, free_port, resident)
    try:
        made.start(tiny)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def parts(tiny: Any, app: Path, only_the_bundle: Callable[[], dict[str, str]], free_port: Callable[[], int]) -> Parts:
    """What a lab is made of."""
    return tiny, app, only_the_bundle, free_port


@pytest.fixture(scope="module")
def lab(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """On premises; up for all tests of a file."""
    with up(tmp_path_factory.mktemp("lab"), parts, resident=True) as made:
        yield made


@pytest.fixture(scope="module")
def stock(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Flower's own processes; up for all tests of a file."""
    with up(tmp_path_factory.mktemp("stock"), parts, resident=False) as made:
        yield made


@pytest.fixture(scope="session")
def learn_together(private: Callable[[Path], Path]) -> Callable[[Lab, Path], str]:
    """Two sites learn together, and each keeps its own ledger; what ``flwr run`` said."""

    def played(lab: Lab, folder: Path) -> str:
        out = folder / "run"
        number, said = lab.submit(scenario=str(private(folder / "s.toml")), out=str(out), set="train.steps=2 seed=4")
        assert lab.entry(number)["status"] == "finished:completed", said
        run = RunDir.open(out)
        assert {row["round"] for row in run.rows()} == {0, 1, 2}
        _, arrays = read_adapter(run.adapter)
        assert any(value.any() for name, value in arrays.items() if name.endswith("lora_B"))
        assert run.report.is_file()
        assert list(run.sites.iterdir()) == []
        spent = run.read_privacy()["sites"]
        for name in ("north", "south"):
            known = lab.ledger(name).spent()
            assert lab.steps(name) == 4
            assert spent[name]["epsilon"] == pytest.approx(known.epsilon)
            assert spent[name]["epsilon"] > 0
            assert list((lab.folder / name / "state" / name / "sealed").iterdir())
        assert f"run directory: {out}" in said
        assert "round 2/2 second: 2/2 sites" in said
        return said

    return played


@pytest.fixture(scope="session")
def private(tiny: Any) -> Callable[[Path], Path]:
    """Writes a scenario for two private sites; ``data.train`` is a word: the records are at the sites."""

    def write(path: Path) -> Path:
        privacy = {"enabled": True, "noise_multiplier": 1.0, "delta": DELTA}
        sites = {"count": 2, "held_out": 0.0}
        return Path(tiny.scenario(path, sites=sites, privacy=privacy, data={"train": "at-the-sites"}))

    return write


@pytest.fixture(scope="session")
def fault_lab(loaded: Callable[[Path], Any]) -> Any:
    """``of_faults.py``."""
    return loaded(Path(__file__).with_name("of_faults.py"))
