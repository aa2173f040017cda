"""A federation from its page to its runs: kits, TLS, keys, real processes, each owner in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.cli.apps import app_root


class Federation:
    """Folders of one machine; ``typed``: how many commands each of their owners has given."""

    def __init__(self, folder: Path, environment: dict[str, str], port: int) -> None:
        self.folder, self.environment, self.port = folder, environment, port
        self.kit = folder / "kits" / "coordinator"
        self.typed = Counter[str]()
        self._up: list[subprocess.Popen[bytes]] = []

    def at(self, who: str) -> Path:
        """Where ``who`` types."""
        return self.folder / ("." if who == "coordinator" else who)

    def type(self, who: str, *words: str, code: int = 0) -> str:
        """A command that ends; its output."""
        self.typed[who] += 1
        done = subprocess.run(
            [sys.executable, "-P", "-m", "llmchain_fl", *words], env=self.environment, cwd=self.at(who),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1500, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + self.logs()
        return done.stdout

    def up(self, who: str, *words: str) -> None:
        """A command that stays."""
        self.typed[who] += 1
        with (self.folder / f"{who}.log").open("wb") as log:
            command = [sys.executable, "-P", "-m", "llmchain_fl", *words]
            self._up.append(
                subprocess.Popen(
                    command, env=self.environment, cwd=self.at(who), stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )  # fmt: skip

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(file.read_text(errors="replace")[-3000:] for file in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        """Everything, gently."""
        for process in self._up:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._up:
            process.wait(timeout=60)


@pytest.fixture
def federated(
    tmp_path: Path, tiny: Any, only_the_bundle: Callable[[], dict[str, str]], free_port: Callable[[], int]
) -> Iterator[Callable[..., Federation]]:
    """(page, name of a folder, sections of the scenario) -> a federation with both; ``{port}`` is filled in."""
    made: list[Federation] = []

    def make(page: str, name: str, **sections: Any) -> Federation:
        environment = only_the_bundle() | {"PYTHONPATH": str(app_root())}
        one = Federation(tmp_path / name, environment, free_port())
        one.folder.mkdir()
        tiny.scenario(one.folder / "scenario.toml", **sections)
        (one.folder / "federation.toml").write_text(page.format(port=one.port))
        made.append(one)
        return one

    try:
        yield make
    finally:
        for one in made:
            one.stop()
