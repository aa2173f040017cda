"""A federation small enough to be run over real processes, and what keeps those processes quiet and in sight."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import llmchain_fl
from llmchain_fl.config.read import build
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import to_toml

QUIET = 240
"""Seconds without any progress after which a test gives up waiting for other processes."""


def write_records(path: Path, labels: dict[str, str], count: int, seed: int) -> Path:
    """``count`` records, labels in turn, each of four words out of its label's text."""
    draw = random.Random(seed)
    turns = (list(labels)[i % len(labels)] for i in range(count))
    rows = [
        {"text": " ".join(draw.choices(labels[label].split(), k=4)), "label": label, "person": f"p{number // 2}"}
        for number, label in enumerate(turns)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class TinyFederation:
    """Records and configuration over a tiny random BERT."""

    def __init__(self, folder: Path, model: Path, labels: dict[str, str]) -> None:
        self.model, self.labels = model, labels
        self.train = write_records(folder / "train.jsonl", labels, 60, seed=1)
        self.test = write_records(folder / "test.jsonl", labels, 40, seed=2)

    def config(self, **sections: dict[str, object]) -> RunConfig:
        """Three sites, two stages of one round, seeded, no privacy; ``sections`` are laid over it."""
        tree: dict[str, object] = {
            "seed": 3,
            "model": {"path": str(self.model), "threads": 1, "max_tokens": 8},
            "adapter": {"rank": 2},
            "task": {"labels": list(self.labels)},
            "data": {"train": str(self.train), "test": str(self.test), "baseline": 0},
            "sites": {"count": 3, "held_out": 0.2, "wait_seconds": 900},
            "train": {"steps": 3, "sampling_rate": 0.5, "batch_size": 8, "lr": 0.02},
            "continual": {"guards": ["ema"]},
            "stage": [{"name": "first", "rounds": 1}, {"name": "second", "rounds": 1}],
        }
        for name, section in sections.items():
            known = tree.get(name, {})
            tree[name] = {**known, **section} if isinstance(known, dict) else section
        return build(tree)

    def played(self, folder: Path, watch: Any = None, **sections: Any) -> tuple[Any, dict[str, Any]]:
        """A run in this process, and the arrays of its adapter. ``watch``: sees what a site's own loop gave."""
        from client.app import make_app
        from llmchain_fl.adapter.files import read_adapter
        from llmchain_fl.progress import Logged
        from llmchain_fl.run_dir import RunDir
        from server.app import run_all
        from simulations.grid import InProcessGrid
        from simulations.prepare import prepare_sites

        config = self.config(**sections)
        run = RunDir.create(folder, to_toml(config))
        by_name = {site.name: site for site in prepare_sites(config, run.sites)}
        app = make_app(lambda context: by_name[str(context.node_config["site-name"])], watch)
        run_all(config, run, InProcessGrid(app, by_name), Logged())
        return run, read_adapter(run.adapter)[1]

    def scenario(self, path: Path, **sections: dict[str, object]) -> Path:
        """The configuration as a scenario file."""
        path.write_text(to_toml(self.config(**sections)), encoding="utf-8")
        return path


@pytest.fixture(scope="session")
def tiny(small: Any, tmp_path_factory: pytest.TempPathFactory) -> TinyFederation:
    """Made once for all tests of this folder."""
    return TinyFederation(tmp_path_factory.mktemp("tiny"), small.bert, small.labels)


@pytest.fixture
def without_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs write no report: a third of the time of a tiny one, and tests of adapters and rows do not look at it."""
    monkeypatch.setattr("server.app._write_pages", lambda run: None)


@pytest.fixture(scope="session")
def quiet_environment() -> Callable[[Path], dict[str, str]]:
    """``home -> environment`` in which Flower and Ray talk to nobody and Flower keeps its own files in ``home``."""

    def environment(home: Path) -> dict[str, str]:
        switches = {
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }
        return {**os.environ, **switches}

    return environment


@pytest.fixture(scope="session")
def still_running() -> Callable[[dict[str, str]], list[psutil.Process]]:
    """Processes in this environment (at any depth: a child inherits it) that do not end."""

    def look(environment: dict[str, str]) -> list[psutil.Process]:
        end = time.monotonic() + 60
        while (found := _marked(environment["FLWR_HOME"])) and time.monotonic() < end:
            time.sleep(0.2)
        return found

    return look


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """Waits for what happens in other processes: as long as they get on, however slow the machine is."""

    def wait(done: Callable[[], bool], *watch: Path, alive: Callable[[], bool] = lambda: True) -> None:
        """Until ``done()``; ``watch``: folders whose files change while there is progress.

        Fails where nothing grows for ``QUIET`` seconds, or the process is not ``alive()``.
        """
        seen, end = -1, time.monotonic() + QUIET
        while not done():
            size = _size(watch)
            if size != seen:
                seen, end = size, time.monotonic() + QUIET
            if time.monotonic() > end or not alive():
                logs = (path for folder in watch for path in folder.rglob("*.log"))
                pytest.fail("no progress\n" + "\n".join(path.read_text(errors="replace")[-2000:] for path in logs))
            time.sleep(0.2)

    return wait


def _size(folders: Iterable[Path]) -> int:
    """Bytes in all files; one that is gone before it is looked at counts for nothing."""
    found = 0
    for path in (path for folder in folders for path in folder.rglob("*")):
        with contextlib.suppress(OSError):
            found += path.stat().st_size
    return found


def _marked(home: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("FLWR_HOME") == home:
                found.append(process)
    return found


@pytest.fixture(scope="session")
def only_the_bundle(
    quiet_environment: Callable[[Path], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], dict[str, str]]]:
    """Makes environments in which our packages come from the bundle alone; what runs in them at the end is killed."""
    made = []

    def environment() -> dict[str, str]:
        one = quiet_environment(tmp_path_factory.mktemp("home") / "flwr")
        one.pop("PYTHONPATH", None)
        one["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), one["PATH"]])
        made.append(one)
        return one

    yield environment
    for one in made:
        for process in _marked(one["FLWR_HOME"]):
            with contextlib.suppress(psutil.Error):
                process.kill()


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout in a folder whose name Flower accepts."""
    root = Path(llmchain_fl.__file__).parent.parent
    target = tmp_path_factory.mktemp("app") / "llmchain-fl"
    for name in ("llmchain_fl", "client", "server", "simulations", "tests", "docs"):
        shutil.copytree(root / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "_app"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(root / name, target / name)
    return target


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A port of this machine that nobody listens on."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture
def quiet_flower(
    quiet_environment: Callable[[Path], dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> dict[str, str]:
    """Such an environment for this test's own process, too."""
    environment = quiet_environment(tmp_path / "flwr")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.fixture(scope="session")
def loaded() -> Callable[[Path], Any]:
    """A file of these tests that is no test -> its module."""

    def load(file: Path) -> Any:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def kits(loaded: Callable[[Path], Any]) -> Any:
    """``of_kits.py``."""
    return loaded(Path(__file__).with_name("of_kits.py"))
